import io
import json
import sys

import pandas as pd
import pytest
from tiny_runs import KOREAN, MILD, URGENT
from transformers import pipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory, short):
    """The folder of a run that `dsgkd train` made."""
    folder = tmp_path_factory.mktemp("run") / "first"
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["dsgkd", "train", *short, "--out", str(folder)])
    from dsgkd.cli import main

    with pytest.raises(SystemExit) as exit_:
        main()
    patch.undo()
    assert exit_.value.code == 0
    return folder


def test_train_leaves_a_model_that_transformers_loads(trained):
    classify = pipeline("text-classification", model=str(trained / "model"))
    assert classify("환아 seizure 있어")[0]["label"] in ("0", "1")


def test_train_prints_an_epoch_a_line_and_what_to_do_next(run_cli, short, tmp_path):
    code, out, _ = run_cli("train", *short, "--out", tmp_path / "run")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("epoch")] == [
        ["epoch", "1"],
        ["epoch", "2"],
    ]
    assert "hidden" in out
    assert "next: dsgkd evaluate" in out


def test_plain_training_has_no_distillation_terms(run_cli, short, tmp_path):
    _, out, _ = run_cli("train", *short, "--plain", "--out", tmp_path / "run")
    assert "hidden" not in out


def test_a_dotted_flag_overrides_a_field(run_cli, short, tmp_path):
    flags = [*short, "--optimisation.epochs", "1", "--alpha", "0.5"]
    code, out, _ = run_cli("train", *flags, "--out", tmp_path / "run")
    assert code == 0
    assert out.count("epoch ") == 1


def test_training_goes_on_only_when_asked_to(run_cli, short, tmp_path):
    run_cli("train", *short, "--out", tmp_path / "run")
    code, _, err = run_cli("train", *short, "--out", tmp_path / "run")
    assert code == 2
    assert "--resume" in err
    code, _, _ = run_cli("train", *short, "--out", tmp_path / "run", "--resume")
    assert code == 0


def test_evaluate_prints_the_measures_of_a_split(run_cli, trained, notes_csv):
    code, out, _ = run_cli("evaluate", "--model", trained / "model", "--data", notes_csv, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["notes"] == 9
    assert 0 <= found["auroc"] <= 1


def test_evaluate_agrees_with_what_training_recorded(run_cli, trained, notes_csv):
    flags = ["--data", notes_csv, "--split-name", "validation", "--json"]
    _, out, _ = run_cli("evaluate", "--model", trained / "model", *flags)
    recorded = json.loads((trained / "model" / "dsgkd.json").read_text())["measures"]
    assert json.loads(out)["auroc"] == pytest.approx(recorded["auroc"], abs=1e-3)


def test_training_and_evaluating_on_validation_do_not_read_the_test_split(
    run_cli, trained, short, notes_csv, tmp_path
):
    flags = ("evaluate", "--model", trained / "model", "--json", "--split-name")
    _, expected, _ = run_cli(*flags, "validation", "--data", notes_csv)
    lines = notes_csv.read_text(encoding="utf-8").splitlines()
    spoilt = tmp_path / "spoilt.csv"
    spoilt.write_text(
        "\n".join(",,no label at all,test" if line.endswith(",test") else line for line in lines),
        encoding="utf-8",
    )

    code, out, _ = run_cli("train", *short, "--data", spoilt, "--out", tmp_path / "run")
    assert (code, out.count("epoch ")) == (0, 2)
    assert run_cli(*flags, "validation", "--data", spoilt)[:2] == (0, expected)
    code, _, problem = run_cli(*flags, "test", "--data", spoilt)
    assert code == 2
    assert "no rows in the split 'test'" in problem


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predict_writes_classes_and_probabilities_and_no_text(
    run_cli, trained, notes_csv, tmp_path, ending
):
    target = tmp_path / f"predictions.{ending}"
    code, _, _ = run_cli("predict", "--model", trained / "model", notes_csv, "--out", target)
    frame = pd.read_csv(target) if ending == "csv" else pd.read_parquet(target)
    assert code == 0
    assert list(frame.columns) == ["row", "id", "class", "probability 0", "probability 1"]
    assert len(frame) == 67
    assert (frame["probability 0"] + frame["probability 1"] - 1).abs().max() < 1e-5
    content = frame.to_csv()
    assert not any(word in content for word in [*KOREAN, *URGENT, *MILD])


def test_predict_reads_standard_input(run_cli, trained, monkeypatch):
    lines = "환아 seizure 있어\n\n환아 cough 있어\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), "utf-8"))
    code, out, _ = run_cli("predict", "--model", trained / "model", "-")
    assert code == 0
    assert len(out.splitlines()) == 3


def test_predict_reads_a_text_of_100_000_characters(run_cli, trained, tmp_path):
    pd.DataFrame({"text": ["환아 fever " * 11_000]}).to_csv(tmp_path / "long.csv")
    code, out, _ = run_cli("predict", "--model", trained / "model", tmp_path / "long.csv")
    assert code == 0
    assert len(out.splitlines()) == 2


def test_pretrain_makes_a_model_that_can_be_a_teacher(run_cli, short, tmp_path):
    lines = [f"{a} and {b} were seen" for a in URGENT + MILD for b in MILD + URGENT] * 8
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    flags = ["--width", "64", "--layers", "1", "--vocabulary", "200", "--tokens", "8000"]
    code, out, _ = run_cli(
        "pretrain", "--corpus", tmp_path / "corpus.txt", "--out", tmp_path / "model", *flags
    )
    assert code == 0
    assert "held-out masked loss" in out
    teacherless = [flag for flag in short if flag not in ("--teacher", str(short[5]))]
    code, _, _ = run_cli(
        "train", *teacherless, "--teacher", tmp_path / "model", "--out", tmp_path / "r"
    )
    assert code == 0
