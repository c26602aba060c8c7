"""Linear probing: the head is fitted on the frozen encoder before anything is fine-tuned.

Fine-tuning from a random head distorts what the encoder knows before the head can use it; a head
that fits already does not (Kumar et al., arXiv 2202.10054, section 3).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn

from dsgkd.alignment.texts import UNLABELLED, EncodedTexts
from dsgkd.errors import InputError
from dsgkd.models.heads import Head
from dsgkd.training.evaluation import read_texts
from dsgkd.training.opening import OpenRun
from dsgkd.training.workers import Workers

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the penalty that are tried, for standardised features."""

Floats = NDArray[np.float64]


def fit_probe(run: OpenRun, workers: Workers) -> float:
    """Fit the head's linear layer to the labelled training notes, the encoder as it is.

    Logistic regression with a squared penalty on standardised features; the penalty is the one
    with the least loss on validation.

    Returns:
        The mean loss on the training notes.

    Raises:
        InputError: the head has more than a linear layer.
    """
    head = linear_head(run)
    labels = run.texts.labels
    labelled = np.flatnonzero(labels != UNLABELLED)
    training = run.texts.take(labelled)
    known = head_inputs(run, head, training, workers)
    held_out = head_inputs(run, head, run.validation, workers)
    weight, bias, loss = logistic_regression(
        known, labels[labelled], held_out, run.validation.labels, head.out_features
    )
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return loss


def linear_head(run: OpenRun) -> nn.Linear:
    """Return the layer that a probe fits.

    Raises:
        InputError: there is none.
    """
    head = getattr(run.student, "head", None)
    linear = head.linear if isinstance(head, Head) else None
    if linear is None:
        what = f"the head '{run.config.student.head}' is more than one linear layer"
        raise InputError("probe", what, "choose the head mean, max, words or projected")
    return linear


def head_inputs(run: OpenRun, layer: nn.Linear, texts: EncodedTexts, workers: Workers) -> Floats:
    """Return what the student gives to a layer of its head, [texts, features], in their order."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        return read_texts(
            run, texts, workers, lambda output, batch: seen.pop()[: len(batch)].float()
        ).astype(np.float64)
    finally:
        hook.remove()


def logistic_regression(
    known: Floats,
    labels: Sequence[int] | NDArray[np.int64],
    held_out: Floats,
    held_out_labels: Sequence[int] | NDArray[np.int64],
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Floats, Floats, float]:
    """Fit logits to features, with the penalty that does best on held-out examples.

    Args:
        known: [examples, features].
        labels: [examples], classes from 0.
        held_out: [others, features].
        held_out_labels: [others].
        classes: number of classes; one that never occurs gets the least logit.
        strengths: that are tried.

    Returns:
        Weights [classes, features] and bias [classes] for features as they are, and the mean
        cross-entropy on the known examples.
    """
    mean, scale = known.mean(0), known.std(0)
    scale[scale < 1e-9] = 1.0
    standard, present = (known - mean) / scale, np.unique(labels)
    seen = np.isin(held_out_labels, present)
    others, of_others = (held_out[seen] - mean) / scale, np.asarray(held_out_labels)[seen]

    def loss(model: LogisticRegression) -> float:
        return float(log_loss(of_others, model.predict_proba(others), labels=present))

    fits = [LogisticRegression(C=c, max_iter=1000).fit(standard, labels) for c in strengths]
    best = min(fits, key=loss)
    slopes, offsets = best.coef_, best.intercept_
    if len(present) == 2:  # one logit, shared out among both
        slopes, offsets = np.outer([-0.5, 0.5], slopes), np.array([-0.5, 0.5]) * offsets
    weight, bias = np.zeros((classes, known.shape[1])), np.zeros(classes)
    weight[present] = slopes / scale
    bias[present] = offsets - weight[present] @ mean
    bias[np.setdiff1d(np.arange(classes), present)] = bias[present].min() - 10.0
    on_known = best.predict_proba(standard)
    return weight, bias, float(log_loss(labels, on_known, labels=present))
