"""What the user types is named in full, for workers run in another folder."""

import pytest

from dsgkd.cli.paths import absolute, absolute_controls, absolute_model, absolute_run
from dsgkd.distillation.config import DistillationConfig
from dsgkd.study.config import ConfirmationConfig
from dsgkd.training.config import RunConfig


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("student", "a+b", "kobert", "text"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_local_paths_become_absolute_and_uris_stay(here):
    assert absolute("notes.csv") == str(here / "notes.csv")
    assert absolute("") == ""
    assert absolute("s3://bucket/x") == "s3://bucket/x"
    assert absolute("~no-such-user/x").endswith("~no-such-user/x")


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("student", "{}/student"),
        ("kobert", "kobert"),
        ("org/model", "org/model"),
        ("corpus:text", "corpus:{}/text"),
        ("a+b", "{}/a+b"),
        ("corpus:a+b", "corpus:{}/a+b"),
        ("student+cbert", "{}/student+cbert"),
        ("0.7*student+0.3*corpus:text", "0.7*{}/student+0.3*corpus:{}/text"),
        ("", ""),
    ],
)
def test_models_that_are_folders_or_corpora_become_absolute(given, full, here):
    assert absolute_model(given) == full.format(here, here)


def test_the_teacher_of_another_domain_becomes_absolute(here):
    given = ConfirmationConfig(controls=("random", "wrong-domain=student"))
    assert absolute_controls(given).controls == ("random", f"wrong-domain={here}/student")


@pytest.mark.parametrize(("given", "full"), [("text", "{}/text"), ("own", "own"), ("", "")])
def test_the_corpus_of_prototypes_becomes_absolute(given, full, here):
    run = RunConfig(distillation=DistillationConfig(prototype_corpus=given))
    assert absolute_run(run).distillation.prototype_corpus == full.format(here)
