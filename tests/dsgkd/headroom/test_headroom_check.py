"""The headroom of real notes and models, however tiny: from a file to the ledger."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import write_notes

from dsgkd.data.sources import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.headroom.check import Headroom, check_headroom, public_names, some_notes
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.features import RANDOM, SHUFFLED, TEACHER
from dsgkd.headroom.report import as_json, full, ledger_rows
from dsgkd.headroom.states import TeacherNotes, spread
from dsgkd.ledger import Ledger
from dsgkd.models.hub import load_model
from dsgkd.training.config import RunConfig
from dsgkd.training.opening import open_notes

QUICK = HeadroomConfig(
    repeats=1, label_counts=(50,), penalties=(0.1, 1.0), random_teachers=1, layers=2
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]):
    notes = tmp_path_factory.mktemp("headroom") / "notes.csv"
    write_notes(notes, {"train": 80, "validation": 4, "test": 4})
    return make_config(data=DataConfig(str(notes)))


@pytest.fixture(scope="module")
def found(run: RunConfig, zoo: Path, cache: Path) -> Headroom:
    return check_headroom(run, [str(zoo / "teacher")], QUICK, StoreConfig(), cache)


def test_every_kind_of_features_is_measured_on_training_notes_alone(found: Headroom) -> None:
    measured = found.measured
    assert measured.notes == 80
    main = [(row.features, row.layer) for row in measured.rows if row.labels == 64][:10]
    assert main == [
        *(("words", None), ("text", None), ("said", None)),
        *(("student tokens", 2), ("student words", 2)),
        *((TEACHER, None), (TEACHER, 2), (TEACHER, 3), (RANDOM, None), (SHUFFLED, None)),
    ]
    # Words give the label away, but for every fifth note, which has none.
    assert measured.find("words").auroc.value > 0.85
    assert found.verdicts[0].finding != "headroom"


def test_the_suggested_mapping_is_one(found: Headroom) -> None:
    ((student, teacher),) = LayerMapping.parse(found.mapping).resolve(2, 3)
    assert student == 2
    assert teacher == found.verdicts[0].layer


def test_the_ledger_keeps_it_and_names_no_folder(found: Headroom, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write("headroom", ledger_rows(found, "s"), "headroom")
    rows = ledger.rows("headroom")
    assert len(rows) == len(found.measured.rows)
    (verdict,) = [row for row in rows if row["verdict"]]
    assert verdict["model"] == "teacher"
    assert verdict["finding"] == found.verdicts[0].finding
    assert verdict["mapping"] == found.mapping
    assert verdict["gain_low"] <= verdict["gain"] <= verdict["gain_high"]


def test_a_terminal_is_told_the_verdict_first_and_no_line_is_long(found: Headroom) -> None:
    lines = list(full(found))
    assert lines[0] == found.verdicts[0].sentence
    assert max(map(len, lines[1:])) < 140
    assert "nan" not in "\n".join(lines)
    assert as_json(found)["verdicts"][0]["mapping"] == found.mapping


def test_pooled_states_are_the_teachers_own(run: RunConfig, zoo: Path, cache: Path) -> None:
    own = replace(run, distillation=DistillationConfig(str(zoo / "teacher")), splits=("train",))
    texts = open_notes(own, cache)
    states = TeacherNotes(own, texts, "t").states(QUICK, StoreConfig(), cache)
    (teacher,) = [values for name, values in states.items() if name[1:3] == (TEACHER, 3)]

    view, alignment = texts.teachers[0], texts.alignments[0]
    row = int(np.flatnonzero(alignment.words.lengths > 1)[0])
    model = load_model(str(zoo / "teacher"), "eager").eval()
    tokens = next(iter(view.take(np.array([row])).tokens))
    with torch.no_grad():
        hidden = model(torch.tensor(tokens.astype(np.int64))[None]).last_hidden_state[0].numpy()
    spans = next(iter(alignment.take(np.array([row])).words))[:, 2:4]
    expected = np.mean([hidden[start:end].mean(0) for start, end in spans], 0)
    assert np.abs(teacher[row] - expected).max() < 0.02  # stored in half precision
    without = np.flatnonzero(alignment.words.lengths == 0)
    assert np.isnan(teacher[without]).all()


def test_of_many_notes_some_are_drawn_and_patients_stay_whole() -> None:
    groups = np.repeat(np.arange(50), 3)
    chosen = some_notes(groups, 61, seed=1)
    assert len(chosen) == 60
    assert (np.bincount(groups[chosen]) % 3 == 0).all()
    assert some_notes(groups, 200, seed=1).tolist() == list(range(150))


def test_layers_are_spread_and_names_told_apart() -> None:
    assert spread(12, 4) == (3, 6, 9, 12)
    assert spread(2, 4) == (1, 2)
    assert public_names(["/a/bert", "/b/bert", "x/cbert"]) == ["bert", "bert-2", "cbert"]


def test_notes_without_foreign_words_are_one_line(
    make_config: Callable[..., RunConfig], zoo: Path, cache: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "korean.csv"
    lines = ["text,label,split", *(f"환아 어제 {row},{row % 2},train" for row in range(60))]
    notes.write_text("\n".join([*lines, "환아,0,validation", "환아,0,test"]), encoding="utf-8")
    run = make_config(data=DataConfig(str(notes)))
    with pytest.raises(InputError, match="no training note has a word that"):
        check_headroom(run, [str(zoo / "teacher")], QUICK, StoreConfig(), cache)


@pytest.mark.slow
def test_the_command_prints_the_verdict_or_json(
    run: RunConfig, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dsgkd.cli import headroom

    flags = [
        *("--data", run.data.path, "--student", str(zoo / "student"), "--max-length", "48"),
        *("--teacher", str(zoo / "teacher"), "--cache", str(tmp_path), "--device", "cpu"),
        *("--headroom.repeats", "1", "--headroom.label-counts", "none"),
        *("--headroom.random-teachers", "1", "--headroom.layers", "1"),
    ]
    headroom.run(flags)
    printed = capsys.readouterr().out
    assert "eadroom" in printed
    assert "unlabelled texts" not in printed  # no unlabelled text was given
    headroom.run([*flags, "--json"])
    assert json.loads(capsys.readouterr().out)["verdicts"][0]["teacher"] == "teacher"
