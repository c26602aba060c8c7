"""The loop in which every student is trained, to be read from top to bottom.

`train` is a generator: it yields after every epoch, and whoever consumes it (a terminal command,
a Tune actor, a Ray Train worker) decides what to do with the numbers and whether to go on.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from dsgkd.alignment.batch import Batch
from dsgkd.configuration import structure
from dsgkd.data.sources import SEALED
from dsgkd.data.transfer_set import Feedback, Sampler
from dsgkd.distillation.distiller import Losses
from dsgkd.errors import InputError
from dsgkd.ledger.measures import improvement
from dsgkd.models.randomness import random_state, restore_random_state, seed_everything
from dsgkd.models.student import encoder_parameters
from dsgkd.models.taps import WordStates
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import evaluate_validation, losses_by_source
from dsgkd.training.gradients import (
    batch_losses,
    clip_gradients,
    gradient_shares,
    scale_terms,
)
from dsgkd.training.opening import OpenRun
from dsgkd.training.prefetch import prefetch
from dsgkd.training.probe import fit_probe, linear_head
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
    loss: float
    """Mean training loss: the sum of `weighted`."""
    weighted: dict[str, float]
    """Name of the task's loss and of each term -> its mean in training, with its weight."""
    raw: dict[str, float]
    """The same without the weights."""
    validation: dict[str, float]
    """Measure -> value, and what was chosen on validation, such as `threshold`."""
    examples_per_second: float
    seconds: float
    """Of training, and of measuring `share`."""
    evaluation_seconds: float
    best_epoch: int
    best_objective: float
    finished: bool
    """No epoch follows: the last one, or stopped early."""
    share: dict[str, float] = field(default_factory=dict)
    """Name of the task's loss and of each term -> its share of the update of the encoder at the
    end of the epoch, see `gradient_shares`; empty without terms."""
    stuck: bool | None = None
    """No epoch so far was better than chance, at `selection.stuck_epoch` or later; None: not judged
    yet."""


@dataclass
class Progress:
    """How far a run is; what a checkpoint holds besides weights, optimizer and random state."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps done in the epoch under way."""
    sums: list[list[float]] = field(default_factory=list)
    """Over those steps, as the workers' mean: the parts of the loss with their weights, the same
    without, and in each place the number of texts."""
    seconds: float = 0.0
    """Time spent in the epoch under way."""
    best: dict[str, float] = field(default_factory=dict)
    """Measure -> best value so far, more is better."""
    stale: dict[str, int] = field(default_factory=dict)
    """Measure -> epochs since it improved."""
    best_epoch: int = 0
    finished: bool = False
    at_chance: bool = True
    """No epoch so far was better than chance."""
    sampler: dict[str, Any] = field(default_factory=dict)
    """The sampler's state at the beginning of the epoch under way."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Every `EpochResult`, so that a run can repeat what nobody received."""


def train(
    run: OpenRun,
    checkpoints: Checkpoints,
    workers: Workers | None = None,
    known_epochs: int | None = None,
) -> Iterator[EpochResult]:
    """Train a student, yielding after every epoch.

    Goes on from the checkpoint `LAST` if there is one, bit for bit as if it had never stopped
    (same machine, same number of workers). What a checkpoint knows of epochs after `known_epochs`
    is yielded again first; of a finished run at least the last. The checkpoint `BEST` holds the
    student's weights of the epoch with the best objective.

    Args:
        run: everything the run needs; its student is trained in place.
        checkpoints: all workers must see them.
        workers: the processes that train together; by default those of torch.distributed.
        known_epochs: of how many epochs the caller has the results; None: of all that were run.

    Raises:
        DivergedError: the loss or the weights became infinite or not a number.
        InputError: a checkpoint cannot be written, or another run's is there.
    """
    config, workers, sampler = run.config, workers or Workers.current(), run.sampler()
    optimisation = config.optimisation
    total = optimisation.steps or sampler.steps * optimisation.epochs
    epochs = min(optimisation.epochs, total)
    ends = [total * epoch // epochs for epoch in range(epochs + 1)]  # the first: of none
    if optimisation.probe:
        linear_head(run)  # refused before anything takes time
        ends = [0, *ends]
    optimizer = new_optimizer(run)
    schedule = get_linear_schedule_with_warmup(
        optimizer, int(optimisation.warmup_share * total), total
    )
    progress = Progress(sums=_no_sums(run), sampler=sampler.state())
    # Workers draw different dropout; the order of texts is theirs in common.
    seed_everything(config.seed + 1_000_003 * workers.rank)
    state = _State(run, checkpoints, optimizer, schedule, workers)
    if checkpoints.exists(LAST):
        progress = state.load()
        sampler.load_state(progress.sampler)
    known = len(progress.history) if known_epochs is None else known_epochs
    if progress.finished:
        known = min(known, len(progress.history) - 1)
    yield from (EpochResult(**result) for result in progress.history[known:])
    if optimisation.probe and not progress.epoch:
        started = time.perf_counter()
        loss = fit_probe(run, workers)
        progress.seconds = time.perf_counter() - started
        probed = {run.task.loss_name: loss}
        result = _finish_epoch(run, probed, probed, 0.0, progress, range(0), sampler, workers)
        state.save(progress, is_best=True)
        yield result
    model = workers.wrap_ddp(run.distiller, run.device, not run.task.idle)

    while not progress.finished:
        started = saved = time.perf_counter()
        started -= progress.seconds
        begin, end = ends[progress.epoch : progress.epoch + 2]
        if run.distiller.needs_scales:
            scale_terms(run, progress.sampler, range(begin + progress.step, end), workers)
        model.train()
        sums = torch.tensor(progress.sums, device=run.device)
        batches = training_batches(run, sampler, begin + progress.step, end, workers)
        for batch, teacher_states in prefetch(batches, run.teachers, run.device):
            losses = take_step(run, model, batch, teacher_states, optimizer, schedule, workers)
            texts = torch.full_like(losses.raw, len(batch))
            sums += torch.stack([losses.weighted.detach(), losses.raw, texts])
            progress.step += 1
            if _checkpoint_is_due(optimisation, progress.step, saved, workers):
                sums = workers.sum(sums) / workers.size
                progress.sums = sums.tolist()
                saved = time.perf_counter()
                progress.seconds = saved - started
                state.save(progress)
        means = workers.sum(sums) / (progress.step * workers.size)
        if not means.isfinite().all():
            raise DivergedError(f"the loss is not finite in epoch {progress.epoch + 1}")
        progress.seconds = time.perf_counter() - started

        progress.finished = end == total
        steps = range(begin, end)
        weighted, raw, texts = means.tolist()
        names, texts = run.distiller.names, texts[0] * progress.step * workers.size
        weighted, raw = dict(zip(names, weighted)), dict(zip(names, raw))
        result = _finish_epoch(run, weighted, raw, texts, progress, steps, sampler, workers)
        state.save(progress, is_best=result.best_epoch == result.epoch)
        yield result


def restore_best(run: OpenRun, checkpoints: Checkpoints) -> None:
    """Give the run's student the weights of its best epoch."""
    run.student.load_state_dict(checkpoints.load(BEST)["student"])


def take_step(
    run: OpenRun,
    model: nn.Module,
    batch: Batch,
    teacher_states: Sequence[WordStates],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    workers: Workers,
) -> Losses:
    """Take one step and return its losses, such that the workers' mean is the batch's."""
    losses = batch_losses(run, model, batch, teacher_states, workers)
    optimizer.zero_grad(set_to_none=True)
    losses.weighted.sum().backward()
    clip_gradients(run.distiller, run.config.optimisation)
    optimizer.step()
    schedule.step()
    return losses


def training_batches(
    run: OpenRun, sampler: Sampler, first: int, end: int, workers: Workers
) -> Iterator[Batch]:
    """Yield this worker's share of the batches of some steps, counted over the whole run."""
    collate = run.collator(workers.rank, workers.size)
    for step in range(first, end):
        batch = collate(run.texts, sampler.draw(step))
        yield run.task.prepare(batch, run.texts, (run.config.seed, 0, step, workers.rank))


def _checkpoint_is_due(optimisation: Any, step: int, saved: float, workers: Workers) -> bool:
    if optimisation.checkpoint_steps and step % optimisation.checkpoint_steps == 0:
        return True
    if not optimisation.checkpoint_seconds:
        return False
    # Clocks differ, so the first worker's decides.
    is_due = time.perf_counter() - saved > optimisation.checkpoint_seconds
    return workers.gather(is_due)[0]


def _finish_epoch(
    run: OpenRun,
    weighted: dict[str, float],
    raw: dict[str, float],
    texts: float,
    progress: Progress,
    steps: range,
    sampler: Sampler,
    workers: Workers,
) -> EpochResult:
    """Evaluate, bring `progress` to the end of the epoch, and return what it brought."""
    selection, measures = run.config.selection, run.task.measures
    begun = time.perf_counter()
    share = gradient_shares(run, progress.sampler, steps, workers)
    started = time.perf_counter()
    validation = evaluate_validation(run, workers)
    # The last step's gradient can be infinite although its loss was not.
    if not np.isfinite([validation.measured[measure] for measure in selection.measures]).all():
        raise DivergedError(f"the weights are not finite after epoch {progress.epoch + 1}")
    evaluation_seconds = time.perf_counter() - started
    progress.epoch += 1
    for measure in set(selection.measures):
        value = improvement(validation.measured[measure], measures[measure])
        if measure not in progress.best or value > progress.best[measure]:
            progress.best[measure], progress.stale[measure] = value, 0
            if measure == selection.objective:
                progress.best_epoch = progress.epoch
        else:
            progress.stale[measure] += 1
    stale = [progress.stale[measure] >= selection.patience for measure in selection.stop_when_stale]
    progress.finished |= bool(stale) and all(stale)
    progress.at_chance &= run.task.at_chance(validation.predicted, run.validation)
    is_due = progress.epoch >= selection.stuck_epoch or progress.finished
    best, seconds = progress.best[selection.objective], progress.seconds + started - begun
    result = EpochResult(
        epoch=progress.epoch,
        step=steps.stop,
        loss=sum(weighted.values()),
        weighted=weighted,
        raw=raw,
        validation=validation.measured,
        examples_per_second=texts / max(seconds, 1e-9),
        seconds=seconds,
        evaluation_seconds=evaluation_seconds,
        best_epoch=progress.best_epoch,
        best_objective=improvement(best, measures[selection.objective]),
        finished=progress.finished,
        share=share,
        stuck=progress.at_chance if selection.stuck_epoch and is_due else None,
    )
    sampler.update(Feedback(steps.stop, losses_by_source(run, validation)))
    progress.step, progress.seconds, progress.sampler = 0, 0.0, sampler.state()
    progress.sums = _no_sums(run)
    progress.history.append(asdict(result))
    return result


def _no_sums(run: OpenRun) -> list[list[float]]:
    return [[0.0] * len(run.distiller.names)] * 3


def new_optimizer(run: OpenRun) -> torch.optim.AdamW:
    """AdamW with a learning rate each for encoder, head and criteria; no decay on vectors."""
    optimisation = run.config.optimisation
    encoder = {id(parameter) for parameter in encoder_parameters(run.student)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in run.distiller.named_parameters():
        if name.startswith("terms."):
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


@dataclass(frozen=True)
class _State:
    """Everything that a run needs to go on, in its checkpoints."""

    run: OpenRun
    checkpoints: Checkpoints
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    workers: Workers

    def save(self, progress: Progress, is_best: bool = False) -> None:
        """Write it, on the first worker."""
        run, generators = self.run, self.workers.gather(random_state())

        def write() -> None:
            if is_best:
                self.checkpoints.save(BEST, {"student": run.student.state_dict()})
            self.checkpoints.save(
                LAST,
                {
                    "config": asdict(run.config),
                    "fingerprint": run.fingerprint,
                    "distiller": run.distiller.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "progress": vars(progress),
                    "random": generators,
                },
            )

        self.workers.on_rank_zero(write)

    def load(self) -> Progress:
        """Put everything back, and return how far the run was.

        Raises:
            InputError: it is another run's.
        """
        run, state = self.run, self.checkpoints.load(LAST)
        stored = structure(RunConfig, state["config"])
        for name, before, now in (
            ("settings", _deciding(stored), _deciding(run.config)),
            ("texts", state.get("fingerprint"), run.fingerprint),
        ):
            if before != now:
                what = f"holds the checkpoint of a run with other {name}"
                raise InputError(str(self.checkpoints), what, "choose another --out")
        run.distiller.load_state_dict(state["distiller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if len(state["random"]) == self.workers.size:
            restore_random_state(state["random"][self.workers.rank])
        return Progress(**state["progress"])


def _deciding(config: RunConfig) -> RunConfig:
    """Return the settings without those that may differ between machines and stages.

    Where the texts lie, and which splits are read besides those that a run needs.
    """
    transfer = config.transfer
    named = replace(
        transfer,
        unlabelled=("",) * bool(transfer.unlabelled),
        glossary="glossary" * bool(transfer.glossary),
    )
    corpus = "corpus" * bool(config.distillation.prototype_corpus)
    return replace(
        config,
        data=replace(config.data, path=""),
        transfer=named,
        distillation=replace(config.distillation, prototype_corpus=corpus),
        splits=SEALED,
    )
