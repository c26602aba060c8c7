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
from transformers import get_linear_schedule_with_warmup

from dsgkd.alignment.batch import Batch
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.state_kinds import bytes_needed, kinds_of
from dsgkd.distillation.teachers.source import SHORT_RUN, RunTeacher, choose, live_model
from dsgkd.distillation.teachers.teacher import StoredTeacher
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.storage.location import Location
from dsgkd.study.preparation.shared_cache import pull
from dsgkd.study.preparation.tasks import collect
from dsgkd.training.config import AdaptationConfig, RunConfig
from dsgkd.training.evaluation import predict
from dsgkd.training.loop import BEST, LAST, new_optimizer, take_step
from dsgkd.training.opening import OpenRun, open_run, passes, teacher_sources
from dsgkd.training.prefetch import prefetch
from dsgkd.training.workers import Workers

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
    shared_cache: str = "",
) -> dict[str, MethodCost]:
    """Time one run of each method on the cluster, side by side as trials will run.

    Args:
        runs: method -> its run.
        cache: folder of the notes and models, which are there already.
        store: where teachers are stored, and how much they may take.
        resources: of one worker, `{"cpu": 1}` or with `"gpu"`.
        workers: of a trial. One is timed on its share of each batch; what they say to each other
            is not.
        shared_cache: URI of what machines without a folder in common share.

    Raises:
        InputError: a run cannot be opened, or its batches do not fit into the memory of the GPU.
    """
    needs = {"num_cpus": resources["cpu"], "num_gpus": resources.get("gpu", 0), "max_retries": 3}
    given = (cache, store, workers, shared_cache)
    tasks = [_timed.options(**needs).remote(run, *given) for run in runs.values()]
    return dict(zip(runs, collect(tasks)))


@ray.remote(max_calls=1)  # the process ends, and gives the GPU's memory back
def _timed(
    config: RunConfig, cache: Path, store: StoreConfig, workers: int, shared_cache: str
) -> MethodCost:
    if shared_cache:
        pull(Location(shared_cache), cache)
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
    live = replace(config, links=(), adaptation=AdaptationConfig())
    live = replace(live, distillation=replace(config.distillation, teacher_store="live"))
    run = open_run(live, cache, store)
    opening = time.perf_counter() - started
    batches = _batches(run, workers)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=".timing-") as name:
        folder = Path(name)
        rows = torch.cat([batch.rows for batch in batches]).unique().numpy()
        stored = [
            _stored(run, config, at, cache, store, rows, folder) for at in range(len(run.teachers))
        ]
        run = replace(run, teachers=tuple(teacher for teacher, _ in stored))
        optimizer, checkpoints = new_optimizer(run), Checkpoints(folder)
        step, evaluation = _step_seconds(run, batches, optimizer), _evaluation_seconds(run)
        started = time.perf_counter()
        state = {"distiller": run.distiller.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoints.save(LAST, state)
        checkpoints.save(BEST, {"student": run.student.state_dict()})
        saving = time.perf_counter() - started
        last_bytes, model_bytes = ((folder / file).stat().st_size for file in (LAST, BEST))
    return MethodCost(
        opening_seconds=opening,
        step_seconds=step,
        steps=_steps(run),
        evaluation_seconds=evaluation / workers,
        saving_seconds=saving,
        checkpoint_bytes=last_bytes + model_bytes,
        model_bytes=model_bytes,
        storing_seconds=sum(seconds for _, seconds in stored),
    )


def _steps(run: OpenRun) -> int:
    """Return the steps from one evaluation to the next."""
    optimisation = run.config.optimisation
    if optimisation.steps:
        return -(-optimisation.steps // optimisation.epochs)
    return run.sampler().steps


def _batches(run: OpenRun, workers: int) -> list[Batch]:
    """Return one worker's share of a few batches that stand for an epoch, from short to long."""
    sampler, collate, seed = run.sampler(), run.collator(0, workers), run.config.seed
    drawn = (
        run.task.prepare(collate(run.texts, sampler.draw(step)), run.texts, (seed, 0, step, 0))
        for step in range(sampler.steps)
    )
    by_length = sorted(islice(drawn, DRAWN), key=lambda batch: batch.student.input_ids.shape[1])
    # The middle ones of as many equal parts.
    return [by_length[(2 * n + 1) * len(by_length) // (2 * LENGTHS)] for n in range(LENGTHS)]


def _stored(
    run: OpenRun,
    wanted: RunConfig,
    at: int,
    cache: Path,
    store: StoreConfig,
    rows: np.ndarray,
    folder: Path,
) -> tuple[RunTeacher, float]:
    """Return a teacher stored for some texts, and the seconds to store all texts.

    One that will not be stored, or has no word in these texts, is returned as it is.
    """
    teacher, distillation, view = run.teachers[at], wanted.distillation, run.texts.teachers[at]
    needed = words_needed(run.texts.alignments[at], distillation.max_transfer_words)
    words = np.zeros_like(needed)
    words[rows] = needed[rows]
    source = teacher_sources(wanted, cache, run.device, run.autocast)[at]
    request = run.distiller.requests(at)[1]
    kinds = kinds_of(request)
    size = bytes_needed(kinds, source.config, needed, view.lengths)
    is_short = passes(wanted, run.texts) <= SHORT_RUN
    is_stored, _ = choose(distillation.teacher_store, size, store, is_short)
    if not is_stored or not words.any():
        return teacher, 0.0
    states = source.states(StoreConfig(str(folder)), cache)

    def fill_in() -> bool:
        return populate(states, view, words, kinds, lambda: live_model(source), run.autocast)

    started = time.perf_counter()
    fill_in()
    seconds = (time.perf_counter() - started) * np.count_nonzero(needed) / np.count_nonzero(words)
    live_model.cache_clear()  # a study's trials have the memory to themselves
    stored = RunTeacher(StoredTeacher(states, request, fill_in), "miss", "", states)
    return stored, float(seconds)


def _step_seconds(
    run: OpenRun, batches: Sequence[Batch], optimizer: torch.optim.Optimizer
) -> float:
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 10**6)
    run.distiller.train()
    seconds: dict[int, list[float]] = {number: [] for number in range(len(batches))}
    order = [0] * WARM_UP + [number for number in seconds for _ in range(REPEATS)]
    started = time.perf_counter()
    chosen = [batches[number] for number in order]
    for at, (batch, states) in enumerate(prefetch(chosen, run.teachers, run.device)):
        take_step(run, run.distiller, batch, states, optimizer, schedule, Workers())
        _wait_for(run.device)
        ended = time.perf_counter()
        if at >= WARM_UP:
            seconds[order[at]].append(ended - started)
        started = ended
    return mean(median(times) for times in seconds.values())


def _evaluation_seconds(run: OpenRun) -> float:
    """Return the seconds to predict the whole validation split, from a part of it."""
    validation = run.validation
    by_length = np.argsort(validation.lengths, kind="stable")
    part = validation.take(np.sort(by_length[:: max(1, len(validation) // EVALUATED)]))
    seconds = 0.0
    for _ in range(2):  # the first is for warming up
        started = time.perf_counter()
        predict(run, part)  # waits for the device by itself
        seconds = time.perf_counter() - started
    return seconds * len(validation) / len(part)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
