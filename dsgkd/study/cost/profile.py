"""The times of an opening, a step, an evaluation and a checkpoint on this cluster.

Timed with the loop's own step, on a few batches of the run's own notes, in tasks with a trial's
resources. A teacher that is going to be stored is stored for these batches alone, in a folder that
goes afterwards, so that a timed step is a step of the study.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from transformers import get_linear_schedule_with_warmup

from dsgkd.alignment.batches import Batch, steps_per_epoch, training_batches
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.teachers.source import (
    SHORT_RUN,
    RunTeacher,
    choose,
    live_model,
    teacher_bytes,
)
from dsgkd.distillation.teachers.teacher import StoredTeacher
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import save_state
from dsgkd.study.preparation.tasks import collect
from dsgkd.training.evaluation import predict
from dsgkd.training.loop import BEST, LAST, new_optimizer, take_step
from dsgkd.training.prefetch import feed
from dsgkd.training.run import OpenRun, RunConfig, open_run, teacher_source
from dsgkd.training.workers import Workers

Array = NDArray[np.int64]

LENGTHS = 4
"""Batches that are timed, from short to long: batches are bucketed by length, so the time of one
that is drawn at random says little about an epoch."""
DRAWN = 32
"""Batches of which these are chosen."""
WARM_UP = 2
"""Steps before the clock runs."""
REPEATS = 3
"""Times that each batch is stepped through; the median counts, whatever else the machine did."""
EVALUATED = 256
"""Validation notes that are predicted."""


@dataclass(frozen=True)
class MethodCost:
    """What a run of one method takes. Times are in seconds, of all workers at once."""

    opening_seconds: float
    """Reading the notes and loading the models, in a process that was started before."""
    step_seconds: float
    steps: int
    """Of an epoch."""
    evaluation_seconds: float
    """Of the whole validation split."""
    saving_seconds: float
    """Of the checkpoints after an epoch."""
    checkpoint_bytes: int
    """Of the two that a trial keeps, of its last and of its best epoch."""
    model_bytes: int
    """Of a student that is kept."""
    storing_seconds: float = 0.0
    """Of one worker that asks the teacher for all training texts; 0: the teacher is not stored."""

    @property
    def epoch_seconds(self) -> float:
        """Of an epoch."""
        return self.steps * self.step_seconds + self.evaluation_seconds + self.saving_seconds


def time_methods(
    runs: Mapping[str, RunConfig],
    cache: Path,
    store: StoreConfig,
    resources: Mapping[str, float],
    workers: int = 1,
) -> dict[str, MethodCost]:
    """Time one run of each method on the cluster, side by side as trials will run.

    Args:
        runs: method -> its run.
        cache: folder of the notes and models, which are there already.
        store: where teachers are stored, and how much they may take.
        resources: of one worker, `{"cpu": 1}` or with `"gpu"`.
        workers: of a trial. One is timed on its share of each batch; what they say to each other
            is not.

    Raises:
        InputError: a run cannot be opened, or its batches do not fit into the memory of the GPU.
    """
    needs = {"num_cpus": resources["cpu"], "num_gpus": resources.get("gpu", 0), "max_retries": 3}
    tasks = [_timed.options(**needs).remote(run, cache, store, workers) for run in runs.values()]
    return dict(zip(runs, collect(tasks)))


@ray.remote(max_calls=1)  # the process ends, and gives the GPU's memory back
def _timed(config: RunConfig, cache: Path, store: StoreConfig, workers: int) -> MethodCost:
    assigned = ray.get_runtime_context().get_assigned_resources()
    torch.set_num_threads(max(1, int(assigned["CPU"])))
    if torch.cuda.is_available() and 0 < assigned.get("GPU", 0) < 1:
        torch.cuda.set_per_process_memory_fraction(assigned["GPU"])
    try:
        return time_run(config, cache, store, workers)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "batch_size",
            f"{config.optimisation.batch_size} notes do not fit into the memory of the GPU",
            "give a smaller one, or a larger share of a GPU",
        ) from error


def time_run(
    config: RunConfig, cache: Path, store: StoreConfig | None = None, workers: int = 1
) -> MethodCost:
    """Time one run in this process.

    Args:
        config: the run.
        cache: as in `open_run`.
        store: as in `open_run`; nothing is written into it.
        workers: of which this process takes one's share of each batch.

    Raises:
        InputError: the run cannot be opened.
    """
    store, started = store or StoreConfig(), time.perf_counter()
    live = replace(config, distillation=replace(config.distillation, teacher_store="live"))
    run = open_run(live, cache, store)
    opening = time.perf_counter() - started
    batches = _batches(run, workers)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=".timing-") as folder:
        rows = torch.cat([batch.rows for batch in batches]).unique().numpy()
        run, storing = _with_store(run, config, cache, store, rows, Path(folder))
        optimizer = new_optimizer(run, run.config)
        step, evaluation = _step_seconds(run, batches, optimizer), _evaluation_seconds(run)
        last, best = Path(folder) / LAST, Path(folder) / BEST
        started = time.perf_counter()
        state = {"distiller": run.distiller.state_dict(), "optimizer": optimizer.state_dict()}
        save_state(last, state)
        save_state(best, {"student": run.distiller.student.state_dict()})
        saving = time.perf_counter() - started
        model_bytes, last_bytes = best.stat().st_size, last.stat().st_size
    return MethodCost(
        opening_seconds=opening,
        step_seconds=step,
        steps=steps_per_epoch(len(run.notes.split("train")), config.optimisation.batch_size),
        evaluation_seconds=evaluation / workers,
        saving_seconds=saving,
        checkpoint_bytes=last_bytes + model_bytes,
        model_bytes=model_bytes,
        storing_seconds=storing,
    )


def _batches(run: OpenRun, workers: int) -> list[Batch]:
    """Return one worker's share of a few batches that stand for an epoch, from short to long."""
    drawn = training_batches(
        run.notes.split("train"),
        run.config.optimisation.batch_size,
        run.config.distillation.cs_max_len,
        run.config.seed,
        epoch=0,
        world_size=workers,
        same_length=run.distiller.compares_positions,
    )
    by_length = sorted(islice(drawn, DRAWN), key=lambda batch: batch.student.input_ids.shape[1])
    # The middle ones of as many equal parts.
    return [by_length[(2 * n + 1) * len(by_length) // (2 * LENGTHS)] for n in range(LENGTHS)]


def _with_store(
    run: OpenRun, wanted: RunConfig, cache: Path, store: StoreConfig, rows: Array, folder: Path
) -> tuple[OpenRun, float]:
    """Return the run with its teacher stored for some texts, and the seconds to store all texts.

    A run that will read no stored teacher, or has no word in these texts, is returned as it is.
    """
    if run.teacher is None:
        return run, 0.0
    distillation, training = wanted.distillation, run.notes.split("train")
    needed = words_needed(training, distillation.cs_max_len)
    words = np.zeros_like(needed)
    words[rows] = needed[rows]
    source = teacher_source(wanted, cache, run.device, run.autocast)
    request = run.distiller.teacher_request
    parts = kinds_of(request)
    size = teacher_bytes(source.config, training, needed, parts)
    is_short = wanted.optimisation.epochs <= SHORT_RUN
    is_stored, _ = choose(distillation.teacher_store, size, store, is_short)
    if not is_stored or not words.any():
        return run, 0.0
    states = source.states(StoreConfig(str(folder)), cache)

    def fill_in() -> bool:
        return populate(states, training, words, parts, lambda: live_model(source), run.autocast)

    started = time.perf_counter()
    fill_in()
    seconds = (time.perf_counter() - started) * np.count_nonzero(needed) / np.count_nonzero(words)
    live_model.cache_clear()  # a study's trials have the memory to themselves
    stored = RunTeacher(StoredTeacher(states, request, fill_in), "miss", "", states)
    return replace(run, teacher=stored), float(seconds)


def _step_seconds(
    run: OpenRun, batches: Sequence[Batch], optimizer: torch.optim.Optimizer
) -> float:
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 10**6)
    run.distiller.train()
    seconds: dict[int, list[float]] = {number: [] for number in range(len(batches))}
    order = [0] * WARM_UP + [number for number in seconds for _ in range(REPEATS)]
    started = time.perf_counter()
    for at, (batch, taught) in enumerate(feed(run, [batches[number] for number in order])):
        take_step(run, run.distiller, batch, taught, optimizer, schedule, Workers())
        _wait_for(run.device)
        ended = time.perf_counter()
        if at >= WARM_UP:
            seconds[order[at]].append(ended - started)
        started = ended
    return mean(median(times) for times in seconds.values())


def _evaluation_seconds(run: OpenRun) -> float:
    """Return the seconds to predict the whole validation split, from a part of it."""
    validation = run.notes.split("validation")
    by_length = np.argsort(validation.lengths, kind="stable")
    rows = by_length[:: max(1, len(validation) // EVALUATED)]
    names = np.where(np.isin(np.arange(len(validation)), rows), "timed", "left out")
    part = replace(validation, splits=names).split("timed")
    seconds = 0.0
    for _ in range(2):  # the first is for warming up
        started = time.perf_counter()
        predict(run, part)  # waits for the device by itself
        seconds = time.perf_counter() - started
    return seconds * len(validation) / len(part)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
