"""Masked language modelling as a task of a run, on labelled and unlabelled notes together."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from watched_runs import assert_resumes, trained, watch

from dsgkd.alignment.batch import Batch
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.errors import InputError
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import evaluate_validation
from dsgkd.training.opening import open_run


@pytest.fixture(scope="module")
def make(
    make_config: Callable[..., RunConfig], transfer: TransferConfig
) -> Callable[..., RunConfig]:
    def make(teacher: str = "", **optimisation: object) -> RunConfig:
        return make_config(
            "student",
            teacher,
            optimisation={"epochs": 2, "batch_size": 24} | optimisation,
            selection={"objective": "loss", "stop_when_stale": ()},
            task=MaskedLanguageModel(),
            transfer=transfer,
        )

    return make


def test_the_loss_falls_on_held_out_notes(
    make: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    config = make(epochs=8, encoder_lr=5e-3)
    run, results = trained(config, cache, tmp_path)

    assert list(results[0].weighted) == ["mlm"]
    assert results[-1].validation["loss"] < results[0].validation["loss"] - 0.3
    assert results[-1].loss < results[0].loss
    assert results[-1].validation.keys() == {"loss", "masked_accuracy"}
    # The same tokens are hidden at every evaluation.
    assert evaluate_validation(run).measured == results[-1].validation
    assert list(run.task.rows(evaluate_validation(run).predicted, run.validation)) == []


def test_the_same_text_has_other_tokens_hidden_in_every_epoch(
    make: Callable[..., RunConfig], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: dict[int, list[frozenset[int]]] = {}

    def see(batch: Batch) -> None:
        assert batch.student.predicted is not None
        for row, chosen in zip(batch.rows.tolist(), batch.student.predicted):
            hidden.setdefault(row, []).append(frozenset(chosen.nonzero()[:, 0].tolist()))

    watch(monkeypatch, see)
    trained(make(epochs=4), cache, tmp_path)

    assert all(len(hidden[row]) == 4 for row in range(41))  # labelled ones once an epoch
    assert sum(len(set(hidden[row])) > 1 for row in range(41)) > 35


@pytest.mark.slow
def test_it_is_resumed_to_the_bit(
    make: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    assert_resumes(make(), cache, tmp_path, [1, 6, 10])


def test_a_teacher_joins_in(make: Callable[..., RunConfig], cache: Path, tmp_path: Path) -> None:
    _, results = trained(make("teacher"), cache, tmp_path / "run")

    assert list(results[0].weighted) == ["mlm", "hidden"]
    assert 0 < results[-1].weighted["hidden"] < results[0].weighted["hidden"]
    assert_resumes(make("teacher"), cache, tmp_path, [9])


def test_steps_take_the_place_of_epochs(
    make: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    config = make(steps=10, epochs=4)
    _, results = trained(config, cache, tmp_path / "run")

    assert [result.step for result in results] == [2, 5, 7, 10]
    assert_resumes(config, cache, tmp_path, [4, 9])
    for steps in (1, 3, 9):  # every one of four evaluations would come after other three
        _, results = trained(make(steps=steps, epochs=4), cache, tmp_path / f"{steps}")
        assert results[-1].step == steps
        assert [result.finished for result in results][-2:] == [False, True][-len(results) :]


def test_a_tokenizer_without_a_mask_is_one_line(
    make: Callable[..., RunConfig], cache: Path, tmp_path: Path, zoo: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(zoo / "student", bare)
    file = bare / "tokenizer_config.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    facts.pop("mask_token")
    file.write_text(json.dumps(facts), encoding="utf-8")
    config = make()
    unmasked = replace(config, student=replace(config.student, model=str(bare)))
    with pytest.raises(InputError, match="no mask token"):
        open_run(unmasked, cache)
