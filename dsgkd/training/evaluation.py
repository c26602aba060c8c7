"""What a student predicts, and how good that is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsgkd.alignment.batch import Batch, Collator, evaluation_batches
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.tasks.task import Predictions
from dsgkd.training.opening import OpenRun
from dsgkd.training.prefetch import prefetch
from dsgkd.training.workers import Workers


@dataclass(frozen=True)
class Evaluation:
    """A student on some texts."""

    predicted: Predictions
    """In the task's own columns, [texts, ...]."""
    measured: dict[str, float]
    """Every measure by its name, and what was fitted on validation."""


def predict(run: OpenRun, texts: EncodedTexts, workers: Workers | None = None) -> Predictions:
    """Return what the student predicts of each text, in their order, on every worker.

    No teacher is asked and nothing is tapped.
    """
    return read_texts(run, texts, workers or Workers(), run.task.predict)


def read_texts(
    run: OpenRun,
    texts: EncodedTexts,
    workers: Workers,
    keep: Callable[[Any, Batch], Tensor],
) -> Predictions:
    """Let the student read texts, in evaluation mode, without any teacher.

    Args:
        run: opened.
        texts: of any source.
        workers: share the texts.
        keep: takes the student's output and a batch, returns what is kept of each text,
            [batch, ...] float32.

    Returns:
        What was kept, in the order of the texts, on every worker.
    """
    rows, kept = [], []
    with torch.inference_mode(), _evaluating(run):
        for batch in _batches(run, texts.alone(), workers):
            side = batch.to(run.device)
            output = run.distiller.output(side, run.autocast)
            kept.append(keep(output, side).cpu())
            rows.append(batch.rows)
    own = (torch.cat(rows).numpy(), torch.cat(kept).numpy()) if rows else None
    parts = [part for part in workers.gather(own) if part is not None]
    shape = parts[0][1].shape[1:] if parts else (0,)
    result = np.zeros((len(texts), *shape), np.float32)
    for where, values in parts:
        result[where] = values
    return result


def evaluate(
    run: OpenRun,
    texts: EncodedTexts,
    fitted: dict[str, float],
    workers: Workers | None = None,
    predicted: Predictions | None = None,
) -> Evaluation:
    """Measure the student on some texts.

    Args:
        run: opened.
        texts: of any split.
        fitted: what was chosen on validation, by `fitted_on_validation`.
        workers: that evaluate together.
        predicted: if it is known already.
    """
    if predicted is None:
        predicted = predict(run, texts, workers)
    return Evaluation(predicted, run.task.evaluate(predicted, texts, fitted) | fitted)


def evaluate_validation(run: OpenRun, workers: Workers | None = None) -> Evaluation:
    """Measure the student on validation, after fitting there what the task fits.

    Every measure is not a number where a prediction is none.
    """
    workers = workers or Workers()
    if run.task.idle:
        return Evaluation(np.zeros((len(run.validation), 0), np.float32), _terms(run, workers))
    predicted = predict(run, run.validation, workers)
    if not np.isfinite(predicted).all():  # nothing can be fitted to that
        return Evaluation(predicted, dict.fromkeys(run.task.measures, float("nan")))
    fitted = run.task.fit(predicted, run.validation, run.texts)
    return evaluate(run, run.validation, fitted, workers, predicted)


def losses_by_source(run: OpenRun, validation: Evaluation) -> dict[str, float]:
    """Return the task's mean loss on the held-out texts of each source."""
    texts, found = run.validation, {}
    for at, name in enumerate(texts.source_names):
        rows = np.flatnonzero(texts.sources == at)
        if len(rows) == len(texts):
            return {name: validation.measured["loss"]}
        measured = run.task.evaluate(validation.predicted[rows], texts.take(rows), {})
        found[name] = measured["loss"]
    return found


def _terms(run: OpenRun, workers: Workers) -> dict[str, float]:
    """Return the weighted sum of the terms on validation, each a mean over its words.

    And the share of the teachers' variance that is explained, over the terms that can tell; not a
    number where none can.
    """
    device, terms = run.device, len(run.distiller.names) - 1
    sums = torch.zeros(1 + terms, device=device)
    counts = torch.zeros(len(run.teachers), device=device)
    squares = torch.zeros(2, device=device)  # missed, and there
    weights = torch.tensor([0.0, *run.distiller.weights], device=device)
    batches = _batches(run, run.validation, workers, run.collator(workers.rank, workers.size))
    with torch.no_grad(), _evaluating(run):
        for batch, states in prefetch(batches, run.teachers, device):
            with torch.autocast(device.type, torch.bfloat16, enabled=run.autocast):
                losses = run.distiller(batch, states, 1.0, [1.0] * len(states), squares)
            sums += losses.raw
            counts += torch.stack([pair.mask.sum() for pair in batch.pairs])
    sums, counts, squares = (
        workers.sum(sums),
        workers.sum(counts).clamp(min=1),
        workers.sum(squares),
    )
    means = sums / torch.cat([counts.new_ones(1), counts[run.distiller.teacher_of_term]])
    missed, there = workers.sum(squares).tolist()
    explained = 1 - missed / there if there > 0 else float("nan")
    return {"loss": float((weights * means).sum()), "explained": explained}


@contextmanager
def _evaluating(run: OpenRun) -> Iterator[None]:
    """Put the student into evaluation mode for a while."""
    was_training = run.distiller.training
    run.distiller.eval()
    yield
    run.distiller.train(was_training)


def _batches(
    run: OpenRun, texts: EncodedTexts, workers: Workers, collate: Collator | None = None
) -> Iterator[Batch]:
    # On a CPU larger batches only leave its caches (`make bench ONLY=choices`).
    best = 256 if run.device.type == "cuda" else 32
    size = run.config.optimisation.evaluation_batch_size or best
    alone = replace(run.collator(workers.rank, workers.size), teacher_tokens=(), same_length=False)
    for at, batch in enumerate(evaluation_batches(texts, size, collate or alone)):
        yield run.task.prepare(batch, texts, (run.config.seed, 1, at, workers.rank))
