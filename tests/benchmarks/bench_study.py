"""Where the time of a study goes, and how it grows with trials.

Whole studies on a local Ray of two CPUs, through the same `Study` as users', with mini models of
random weights on the embedded world. Figures are read from the ledger: `seconds` of the rows in
`metrics` are training and evaluation, everything else of the workers' time is lost.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from bench_preparation import tokenizers
from bench_reference import save_models
from harness import Row, Section
from local_ray import CPUS, LocalRay
from workload import SEED, spent

from dsgkd.distillation.config import DistillationConfig
from dsgkd.ledger import Ledger, Table
from dsgkd.ledger.ledger import frames
from dsgkd.models.student import StudentConfig
from dsgkd.study.config import ClusterConfig, StudyConfig
from dsgkd.study.console import Console
from dsgkd.study.search.arms import PLAIN
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.study.stages import Stages
from dsgkd.study.study import Study
from dsgkd.training.config import OptimisationConfig, RunConfig


def run(quick: bool) -> Section:
    """Run studies of several sizes, then single trials of one and of two workers."""
    sizes = (3,) if quick else (4, 16)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        out = Path(folder)
        models = new_models(out / "models")
        with LocalRay():
            search_only(
                out, models, "warm-up", 3, 1
            )  # tokenised notes, filled stores, imported torch
            for trials in sizes:
                rows += _whole(out, models, trials, 1 if quick else 4)
    notes = [
        "search stage only: mini (4 x 256) student and teacher, embedded world (833 training "
        "notes), batch 16, bf16 where the CPU has it, hidden states stored",
        "busy: training and evaluation over wall time x 2 CPUs, from the first trial's start to "
        "the last one's end; lost: the rest, per trial",
        "wall / plain: wall time over what the same epochs of plain fine-tuning take on 2 CPUs "
        "(seconds of an epoch: median of the study's own plain trials)",
    ]
    return Section("A whole study", rows, notes)


def _whole(out: Path, models: tuple[str, str], trials: int, epochs: int) -> list[Row]:
    folder, wall = search_only(out, models, f"trials-{trials}", trials, epochs)
    metrics, table = read(folder, "metrics"), read(folder, "trials")
    search = table[table["stage"] == "search"]
    metrics = metrics[metrics["trial_id"].isin(search["trial_id"])]
    span = (search["ended_at"].max() - search["started_at"].min()).total_seconds()
    useful = metrics["seconds"].sum()
    plain = search[search["method"] == PLAIN]["trial_id"]
    an_epoch = metrics[metrics["trial_id"].isin(plain)].groupby(["trial_id", "epoch"])["seconds"]
    plain_epoch = an_epoch.sum().median()
    done = int(search["epochs_done"].sum())
    return [
        {
            "axis": "trials",
            "value": trials,
            "wall s": span,
            "busy": useful / (CPUS * span),
            "aim busy": ">= 0.85",
            "wall / plain": span * CPUS / (plain_epoch * done),
            "aim wall": "<= 1.25",
            "lost s": (CPUS * span - useful) / trials,
            "more": f"{done} epochs of {plain_epoch:.2f} s plain; {wall:.0f} s with all before",
        }
    ]


class SearchOnly(Stages):
    """The stages of a study without confirmation."""

    def of(self, search, concurrent, callbacks):
        yield from self._followed(self._search_stage(search, concurrent), callbacks)


def search_only(
    out: Path, models: tuple[str, str], name: str, trials: int, epochs: int, workers: int = 1
) -> tuple[Path, float]:
    """Run the search stage of a study; return its folder and its wall time."""
    student, teacher = models
    run = RunConfig(
        student=StudentConfig(student),
        distillation=DistillationConfig(alpha=1.0, teacher_store="stored"),
        optimisation=OptimisationConfig(epochs=epochs, batch_size=16),
        seed=SEED,
    )
    config = StudyConfig(
        name=name,
        out=str(out / "runs"),
        run=run,
        teachers=(teacher,),
        space=SearchSpace(mappings=("uniform", "last-2")),
        search=SearchConfig(trials=trials),
        pruning=PruningConfig("none"),  # every trial does all its epochs
        cluster=ClusterConfig(max_concurrent=CPUS // workers, workers_per_trial=workers),
        seed=SEED,
        estimate=False,
        headroom=False,
    )
    study = Study(config, Console(lambda line: None))
    study.check()
    with patch("dsgkd.study.study.Stages", SearchOnly):
        seconds = spent(study.run)
    return config.location.folder, seconds


def new_models(folder: Path) -> tuple[str, str]:
    """Save a student and a teacher of random weights with their tokenizers."""
    save_models(tokenizers(), folder, dropout=0.1)
    return str(folder / "student"), str(folder / "teacher")


def read(folder: Path, table: Table) -> pd.DataFrame:
    return frames([Ledger(folder / "ledger")], table)
