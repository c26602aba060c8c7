"""How is a student trained? This file is the whole answer, to be read from top to bottom.

`train` is a generator: it yields after every epoch, and whoever consumes it (a terminal command,
a Tune actor, a Ray Train worker) decides what to do with the numbers and whether to go on.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from dsgkd.alignment.batches import Batch, steps_per_epoch, training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.configuration import structure
from dsgkd.data.sources import SEALED
from dsgkd.errors import InputError
from dsgkd.models.student import encoder_of
from dsgkd.models.taps import WordStates
from dsgkd.storage.checkpoint import (
    load_state,
    random_state,
    restore_random_state,
    save_state,
    seed_everything,
)
from dsgkd.tasks.measures import improvement, measures
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.prefetch import feed
from dsgkd.training.run import OpenRun, RunConfig
from dsgkd.training.workers import Workers

LAST = "last.safetensors"
BEST = "best.safetensors"


class DivergedError(Exception):
    """The loss or the weights are no longer numbers."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch brought. Times are in seconds."""

    epoch: int
    """Counted from 1."""
    step: int
    """Optimisation steps so far."""
    train: dict[str, float]
    """Mean loss and its terms, each with its weight in."""
    validation: dict[str, float]
    threshold: float
    examples_per_second: float
    seconds: float
    """Of training."""
    evaluation_seconds: float
    best_epoch: int
    best_objective: float
    finished: bool
    """No epoch follows: the last one, or stopped early."""


@dataclass
class Progress:
    """Where a run stands; what a checkpoint holds besides weights, optimizer and random state."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps done in the epoch under way."""
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Sums of the loss terms over those steps, as the workers' mean."""
    seconds: float = 0.0
    """Time spent in the epoch under way."""
    best: dict[str, float] = field(default_factory=dict)
    """Measure -> best value so far."""
    stale: dict[str, int] = field(default_factory=dict)
    """Measure -> epochs since it improved."""
    best_epoch: int = 0
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    """Every `EpochResult`, so that a run can say again what nobody heard."""


def train(
    run: OpenRun, folder: Path, workers: Workers | None = None, known_epochs: int | None = None
) -> Iterator[EpochResult]:
    """Train a student, yielding after every epoch.

    Goes on from `folder/last.safetensors` if there is one, bit for bit as if it had never
    stopped (same machine, same number of workers). What a checkpoint knows of epochs after
    `known_epochs` is yielded again first; of a finished run at least the last.
    `folder/best.safetensors` holds the student's weights of the epoch with the best objective.

    Args:
        run: everything the run needs; its student is trained in place.
        folder: where checkpoints are kept; all workers must see it.
        workers: the processes that train together; by default those of torch.distributed.
        known_epochs: of how many epochs the caller has the results; None: of all that were run.

    Raises:
        DivergedError: the loss or the weights became infinite or not a number.
        InputError: a checkpoint cannot be written, or the folder holds another run's.
    """
    config, workers = run.config, workers or Workers.current()
    training, validation = run.notes.split("train"), run.notes.split("validation")
    stored = run.teacher is not None and run.teacher.is_stored
    if stored and not run.distiller.compares_positions:
        training = replace(training, teacher=None)  # nobody reads the teacher's tokens
    optimisation = config.optimisation
    steps = steps_per_epoch(len(training), optimisation.batch_size)
    optimizer = new_optimizer(run, config)
    schedule = get_linear_schedule_with_warmup(
        optimizer,
        int(optimisation.warmup_share * steps * optimisation.epochs),
        steps * optimisation.epochs,
    )
    progress = Progress()
    # Workers draw different dropout; the order of notes is theirs in common.
    seed_everything(config.seed + 1_000_003 * workers.rank)
    if (folder / LAST).is_file():
        progress = _resume(folder, run, optimizer, schedule, workers)
    known = len(progress.history) if known_epochs is None else known_epochs
    if progress.finished:
        known = min(known, len(progress.history) - 1)
    yield from (EpochResult(**result) for result in progress.history[known:])
    model = workers.share(run.distiller, run.device)

    while progress.epoch < optimisation.epochs and not progress.finished:
        started = time.perf_counter() - progress.seconds
        model.train()
        sums = torch.tensor(progress.losses, device=run.device)
        batches = training_batches(
            training,
            optimisation.batch_size,
            config.distillation.cs_max_len,
            config.seed,
            progress.epoch,
            workers.rank,
            workers.size,
            start=progress.step,
            same_length=run.distiller.compares_positions,
        )
        for batch, taught in feed(run, batches):
            sums += take_step(run, model, batch, taught, optimizer, schedule, workers)
            progress.step += 1
            if optimisation.checkpoint_steps and progress.step % optimisation.checkpoint_steps == 0:
                sums = workers.sum(sums) / workers.size
                progress.losses = sums.tolist()
                progress.seconds = time.perf_counter() - started
                _save(folder, run, optimizer, schedule, progress, workers)
        terms = workers.sum(sums) / (steps * workers.size)
        if not terms.isfinite().all():
            raise DivergedError(f"the loss is not finite in epoch {progress.epoch + 1}")
        progress.seconds = time.perf_counter() - started

        result = _finish_epoch(run, validation, terms.tolist(), progress, steps, workers)
        is_best = result.best_epoch == result.epoch
        _save(folder, run, optimizer, schedule, progress, workers, is_best)
        yield result


def restore_best(run: OpenRun, folder: Path) -> None:
    """Give the run's student the weights of its best epoch."""
    run.distiller.student.load_state_dict(load_state(folder / BEST)["student"])


def take_step(
    run: OpenRun,
    model: nn.Module,
    batch: Batch,
    taught: WordStates | None,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    workers: Workers,
) -> Tensor:
    """Take one step and return the loss terms, [3], such that the workers' mean is the batch's."""
    words_here = batch.word_mask.sum().float()
    counts = torch.stack([torch.full_like(words_here, len(batch.labels)), words_here])
    # Divided by the number of workers because gradients are averaged over them.
    examples, words = workers.sum(counts) / workers.size
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
        losses = torch.stack(model(batch, taught, examples, words))
    optimizer.zero_grad(set_to_none=True)
    losses.sum().backward()
    nn.utils.clip_grad_norm_(run.distiller.parameters(), run.config.optimisation.clip_norm)
    optimizer.step()
    schedule.step()
    return losses.detach()


def _finish_epoch(
    run: OpenRun,
    validation: EncodedNotes,
    terms: list[float],
    progress: Progress,
    steps: int,
    workers: Workers,
) -> EpochResult:
    """Evaluate, update `progress` to the end of the epoch, and say what it brought."""
    selection, epochs = run.config.selection, run.config.optimisation.epochs
    started = time.perf_counter()
    probability = predict(run, validation, workers)
    # The last step's gradient can be infinite although its loss was not.
    if not np.isfinite(probability).all():
        raise DivergedError(f"the weights are not finite after epoch {progress.epoch + 1}")
    threshold = validation_threshold(run, validation.labels, probability)
    measured = measures(validation.labels, probability, threshold)
    evaluation_seconds = time.perf_counter() - started
    progress.epoch += 1
    for measure in {selection.objective, *selection.stop_when_stale}:
        value = improvement(measure, measured[measure])
        if measure not in progress.best or value > progress.best[measure]:
            progress.best[measure], progress.stale[measure] = value, 0
            if measure == selection.objective:
                progress.best_epoch = progress.epoch
        else:
            progress.stale[measure] += 1
    ran_out = all(progress.stale[m] >= selection.patience for m in selection.stop_when_stale)
    progress.finished = progress.epoch == epochs or (bool(selection.stop_when_stale) and ran_out)
    seconds = progress.seconds
    progress.step, progress.seconds, progress.losses = 0, 0.0, [0.0, 0.0, 0.0]
    classification, hidden, attention = terms
    result = EpochResult(
        epoch=progress.epoch,
        step=progress.epoch * steps,
        train={
            "loss": sum(terms),
            "loss_ce": classification,
            "loss_hidden": hidden,
            "loss_attention": attention,
        },
        validation=measured,
        threshold=threshold,
        examples_per_second=len(run.notes.split("train")) / max(seconds, 1e-9),
        seconds=seconds,
        evaluation_seconds=evaluation_seconds,
        best_epoch=progress.best_epoch,
        best_objective=improvement(selection.objective, progress.best[selection.objective]),
        finished=progress.finished,
    )
    progress.history.append(asdict(result))
    return result


def new_optimizer(run: OpenRun, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with a learning rate each for encoder, head and projections; no decay on vectors."""
    optimisation = config.optimisation
    encoder = {id(parameter) for parameter in encoder_of(run.distiller.student).parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in run.distiller.named_parameters():
        if name.startswith("projections."):
            rate = optimisation.projection_lr
        elif id(parameter) in encoder:
            rate = optimisation.encoder_lr
        else:
            rate = optimisation.classifier_lr
        # Biases and normalisation weights are the parameters with one dimension.
        decay = optimisation.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        eps=optimisation.adam_epsilon,
        fused=True,
    )


def _save(
    folder: Path,
    run: OpenRun,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    progress: Progress,
    workers: Workers,
    is_best: bool = False,
) -> None:
    generators = workers.gather(random_state())

    def write() -> None:
        if is_best:
            save_state(folder / BEST, {"student": run.distiller.student.state_dict()})
        save_state(
            folder / LAST,
            {
                "config": asdict(run.config),
                "fingerprint": run.fingerprint,
                "distiller": run.distiller.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "progress": vars(progress),
                "random": generators,
            },
        )

    workers.on_rank_zero(write)


def _resume(
    folder: Path,
    run: OpenRun,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    workers: Workers,
) -> Progress:
    state = load_state(folder / LAST)
    for name, stored, own in (
        ("settings", _deciding(structure(RunConfig, state["config"])), _deciding(run.config)),
        ("notes", state.get("fingerprint"), run.fingerprint),
    ):
        if stored != own:
            what = f"holds the checkpoint of a run with other {name}"
            raise InputError(str(folder), what, "choose another --out")
    run.distiller.load_state_dict(state["distiller"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    if len(state["random"]) == workers.size:
        restore_random_state(state["random"][workers.rank])
    return Progress(**state["progress"])


def _deciding(config: RunConfig) -> RunConfig:
    """Return the settings without those that may differ between machines and stages.

    Where the notes lie, and which splits are read besides those that a run needs.
    """
    return replace(config, data=replace(config.data, path=""), splits=SEALED)
