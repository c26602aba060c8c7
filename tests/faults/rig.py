"""A study of seconds for the fault drills, and what has to be true of its ledger afterwards."""

from pathlib import Path
from typing import Any

import tiny_runs

from dsgkd.data.config import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.ledger import Ledger
from dsgkd.models.student import StudentConfig
from dsgkd.study.config import ClusterConfig, ConfirmationConfig, StudyConfig
from dsgkd.study.history import FINISHED
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import OptimisationConfig, RunConfig

VARIABLE = frozenset(
    {"study_id", "attempt", "seconds", "examples_per_second", "worker_seconds", "gpu_seconds"}
)
"""Columns in which an undisturbed study differs from another one."""


def prepare(folder: Path) -> None:
    """Make the notes and the models, once."""
    if not (folder / "notes.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tiny_runs.write_models(folder / "zoo", tiny_runs.new_tokenizer())
        tiny_runs.write_notes(folder / "notes.csv", {"train": 41, "validation": 17, "test": 9})


def study_config(folder: Path, name: str, resume: bool = False, workers: int = 1) -> StudyConfig:
    """Return a sequential study: two methods, pruning, confirmation and the test split."""
    prepare(folder)
    run = RunConfig(
        data=DataConfig(path=str(folder / "notes.csv")),
        student=StudentConfig(model=str(folder / "zoo" / "student")),
        distillation=DistillationConfig(teacher_store="live"),
        optimisation=OptimisationConfig(
            epochs=3, batch_size=8, encoder_lr=2e-3, classifier_lr=5e-3, precision="fp32"
        ),
        max_length=48,
        device="cpu",
    )
    return StudyConfig(
        name=name,
        out=folder / "studies",
        run=run,
        teachers=(str(folder / "zoo" / "teacher"),),
        space=SearchSpace(mappings=("uniform", "last-1")),
        search=SearchConfig(trials=4 if workers == 1 else 2),
        pruning=PruningConfig(scheduler="asha", grace_epochs=1, reduction_factor=2),
        confirmation=ConfirmationConfig(seeds=1, controls=()),
        test="once" if workers == 1 else "",
        cluster=ClusterConfig(max_concurrent=1, workers_per_trial=workers),
        resume=resume,
        estimate=False,
        headroom=False,
    )


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """Return what a study's ledger says, without what no two studies have in common.

    Raises:
        AssertionError: a trial was finished twice, or not at all.
    """
    ledger = Ledger(str(folder / "studies" / name / "ledger"))
    trials = ledger.rows("trials")
    finished = [row for row in trials if row["state"] in FINISHED]
    names = [row["trial_id"] for row in finished]
    assert len(names) == len(set(names)), "a trial was finished twice"
    assert {row["trial_id"] for row in trials} == set(names), "a trial was not finished"
    kept = ("state", "method", "seed", "objective", "best_epoch", "epochs_done", "parameters")
    metrics = {}
    for row in ledger.rows("metrics"):
        key = (row["trial_id"], row["epoch"], row["split"])
        values = {column: value for column, value in row.items() if column not in VARIABLE}
        assert metrics.setdefault(key, values) == values, f"{key} was reported twice, differently"
    last = {row["trial_id"]: row["attempt"] for row in finished}
    predictions = [
        (row["trial_id"], row["split"], row["example_id"], tuple(row["probability"]))
        for row in ledger.rows("predictions")
        if row["attempt"] == last[row["trial_id"]]
    ]
    return {
        "trials": {row["trial_id"]: {column: row[column] for column in kept} for row in finished},
        "metrics": dict(sorted(metrics.items(), key=str)),
        "predictions": sorted(predictions),
    }


def attempts(folder: Path, name: str) -> int:
    """Return how many attempts were cut off."""
    ledger = Ledger(str(folder / "studies" / name / "ledger"))
    return sum(row["state"] == "preempted" for row in ledger.rows("trials"))
