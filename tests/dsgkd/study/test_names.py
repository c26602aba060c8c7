from dataclasses import replace

import pytest
from trial_events import START, make_spec

from dsgkd.data.config import DataConfig
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.ledger import Ledger
from dsgkd.models.student import StudentConfig
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.config import StudyConfig
from dsgkd.study.names import PublicNames, restored
from dsgkd.study.search.arms import public_name
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.training.config import LinkConfig, RunConfig


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A study whose models and files lie in the user's folders, some of them named relatively."""
    monkeypatch.chdir(tmp_path)
    for folder in ("models/ward-7", "models/own"):
        (tmp_path / folder).mkdir(parents=True)
    adapt = LinkConfig(
        name="adapt",
        task=MaskedLanguageModel(),
        distillation=DistillationConfig(teacher="models/ward-7"),
        transfer=TransferConfig(unlabelled=(str(tmp_path / "clinic" / "more.csv"),)),
    )
    run = RunConfig(
        data=DataConfig(path=str(tmp_path / "clinic" / "notes.csv")),
        student=StudentConfig(model="models/own"),
        links=(adapt,),
    )
    return StudyConfig(
        name="x", out=str(tmp_path / "out"), run=run, teachers=("models/ward-7", "hub/bert")
    )


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("klue/bert-base", "klue/bert-base"),
        ("/home/me/models/ward", "ward"),
        ("0.7*/home/me/a+0.3*klue/bert-base", "0.7*a+0.3*klue/bert-base"),
        ("models/ward-7", "ward-7"),
        ("models/ward-7+hub/bert", "ward-7+hub/bert"),
        ("tiny-ko", "tiny-ko"),
        ("", ""),
    ],
)
def test_a_model_is_called_by_its_name_and_not_by_its_place(config, given, public):
    assert public_name(given) == public


def test_a_row_says_nothing_of_places_and_its_run_can_be_had_again(config, tmp_path):
    run = replace(config.run, distillation=DistillationConfig(teacher="models/ward-7", alpha=3.0))
    ledger, names = Ledger(tmp_path / "ledger"), PublicNames(config)
    spec = make_spec(run=run, folder=str(tmp_path / "out" / "x" / "trials" / "t"))
    LedgerCallback(ledger, public=names.public).on_start(spec, START)
    (row,) = ledger.rows("trials")
    assert row["settings"]["teacher"] == "ward-7"
    assert row["settings"]["student"] == "own"
    assert row["checkpoint"] == "trials/t"
    for secret in (str(tmp_path), "models/", "clinic"):
        assert secret not in str(row), secret
    again = restored(row, config)
    assert again == run
    assert again.links[0].transfer == config.run.links[0].transfer
