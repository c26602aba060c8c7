from dataclasses import replace

import pytest

from dsgkd.data.world import WorldConfig
from dsgkd.errors import InputError
from dsgkd.models.hub import load_model
from dsgkd.models.names import TINY_MODELS
from dsgkd.training import on_the_fly
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.pretraining import build, build_missing
from dsgkd.training.pretraining_config import PretrainingConfig

WORLD = WorldConfig(
    terms=100, conditions=8, english_sentences=1000, mentions=2, korean_sentences=500
)
BRIEF = PretrainingConfig(vocabulary=100, layers=1, width=64, length=16, tokens=500)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("fever and cough since yesterday\n" * 50, encoding="utf-8")
    return f"corpus:{path}"


def test_a_model_of_ones_own_text_is_built_once(corpus, tmp_path):
    lines = []
    folder = build(corpus, tmp_path / "cache", WORLD, BRIEF, lines.append)
    assert folder.parent == tmp_path / "cache" / "models"
    assert folder.name.startswith("notes-")
    assert load_model(str(folder), "dsgkd_plain").config.hidden_size == 64
    built, lines[:] = len(lines), []
    assert build(corpus, tmp_path / "cache", WORLD, BRIEF, lines.append) == folder
    assert built > 1
    assert lines == [f"notes: pre-trained before, from {folder}"]


def test_other_text_is_another_model(corpus, tmp_path):
    folder = build(corpus, tmp_path / "cache", WORLD, BRIEF)
    (tmp_path / "notes.txt").write_text("rash and fever today\n" * 50, encoding="utf-8")
    assert build(corpus, tmp_path / "cache", WORLD, BRIEF) != folder


@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_embedded_models_are_built_from_their_own_language(name, tmp_path, monkeypatch):
    monkeypatch.setattr(on_the_fly, "TINY", BRIEF)
    with pytest.raises(InputError, match=f"{name}: not pre-trained yet"):
        model_reference(name, tmp_path, WORLD)
    lines = []
    build_missing([name, str(tmp_path), name], tmp_path, WORLD, lines.append)
    assert all(line.startswith(f"{name}: ") for line in lines)
    folder = model_reference(name, tmp_path, WORLD)
    (read,) = (tmp_path / "models").glob("*/tokenizer.json")
    assert any("가" <= sign <= "힣" for sign in read.read_text("utf-8")) == (name == "tiny-ko")
    assert folder.startswith(str(tmp_path / "models" / name))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_another_world_has_other_models_and_the_same_language_the_same(name, tmp_path):
    own = on_the_fly.folder_of(name, tmp_path, WORLD)
    assert on_the_fly.folder_of(name, tmp_path, replace(WORLD, seed=21)) != own
    others = {"knowledge": 0.0, "vitals": 0.5, "train_notes": 100, "unlabelled": 0}
    assert on_the_fly.folder_of(name, tmp_path, replace(WORLD, **others)) == own


def test_a_worlds_corpus_is_made_once_per_process():
    first = on_the_fly.corpus("tiny-ko", WORLD)
    assert on_the_fly.corpus("tiny-ko", replace(WORLD, knowledge=0.0)) is first


def test_other_names_are_the_zoos(tmp_path):
    with pytest.raises(InputError, match="kmbert"):
        model_reference("kmbert", tmp_path, WORLD)


def test_a_corpus_that_does_not_exist_is_a_users_error(tmp_path):
    with pytest.raises(InputError):
        model_reference(f"corpus:{tmp_path / 'none'}", tmp_path, WORLD)


def test_a_model_that_is_gone_is_missed_before_it_is_built_again(corpus, tmp_path):
    cache = tmp_path / "cache"
    on_the_fly.check_kept(["kobert", str(tmp_path)], cache, WORLD)  # not built here
    with pytest.raises(InputError, match=r"notes-\w+: not there, .*: copy cache/"):
        on_the_fly.check_kept(["kobert", corpus], cache, WORLD)
    folder = build(corpus, cache, WORLD, BRIEF)
    with pytest.raises(InputError):
        on_the_fly.check_kept([corpus], cache, WORLD)  # that is one of another size
    folder.rename(on_the_fly.folder_of(corpus, cache, WORLD))
    on_the_fly.check_kept([corpus], cache, WORLD)
    assert model_reference(corpus, cache, WORLD) == str(on_the_fly.folder_of(corpus, cache, WORLD))
