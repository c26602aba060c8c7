"""The gradients of the parts of the loss: their norms, the scale of the weights, clipping.

Nothing here is seen by training: batches are drawn by a sampler of their own, the student does not
drop units, and the states of all random number generators are put back.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dsgkd.alignment.batch import Batch
from dsgkd.distillation.distiller import Distiller, Losses
from dsgkd.models.randomness import random_state, restore_random_state
from dsgkd.models.student import encoder_of
from dsgkd.models.taps import WordStates
from dsgkd.training.config import OptimisationConfig
from dsgkd.training.opening import OpenRun
from dsgkd.training.prefetch import prefetch
from dsgkd.training.workers import Workers

SCALE_BATCHES = 8
"""Batches on which the scale of the weights is measured, once a run."""
SHARE_BATCHES = 2
"""Batches on which the shares are measured after an epoch; one after an epoch of fewer than
`LONG_EPOCH` steps."""
LONG_EPOCH = 100
"""Steps. To measure a batch takes as long as 1.4 steps with one term, 1.9 with two."""


def batch_losses(
    run: OpenRun,
    model: nn.Module,
    batch: Batch,
    teacher_states: Sequence[WordStates],
    workers: Workers,
) -> Losses:
    """Return a batch's losses, such that the workers' mean is the whole batch's.

    Args:
        run: opened.
        model: its distiller, as it is or wrapped for data parallelism.
        batch: this worker's share.
        teacher_states: each teacher's states of its words.
        workers: that hold the other shares.
    """
    words = [pair.mask.sum().float() for pair in batch.pairs]
    # Divided by the number of workers because gradients are averaged over them.
    counts = workers.sum(torch.stack([run.task.examples(batch), *words])) / workers.size
    # A batch of unlabelled texts has no example, and zero loss.
    examples = counts[0].clamp(min=1e-9)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
        losses: Losses = model(batch, teacher_states, examples, list(counts[1:]))
    return losses


def gradient_norms(
    run: OpenRun, sampler: dict[str, Any], steps: Sequence[int], workers: Workers
) -> Tensor:
    """Return the size of each part's gradient on the encoder: [1 + terms] float32.

    n_i = mean over batches b of |g_ib|,  g_ib = gradient of w_i L_i on batch b

    with the L2 norm over all parameters of the encoder that are trained. The mean of the batches'
    norms, as in GradNorm (arXiv 1711.02257, section 3.1, which takes the current batch's), not the
    norm of the mean gradient: a step follows, and clipping measures, one batch. And
    E|g_b|^2 = |E g|^2 + tr(Cov g_b): where the head is already at its optimum, as after a linear
    probe, the mean gradient is nearly nothing, while the batches' remain of the size that they
    have in training. A batch's noise shrinks as batches grow, so sizes belong to a batch size.

    The pooler of the architecture's own head does not count: no term can reach it.

    Args:
        run: opened.
        sampler: state of its sampler from which these steps can be drawn.
        steps: whose batches are measured, counted over the whole run.
        workers: that measure together; each reads its share, and gradients are averaged.
    """
    encoder = [parameter for parameter in shared_parameters(run.student) if parameter.requires_grad]
    sums = torch.zeros(len(run.distiller.names), device=run.device)
    if not encoder or not steps:
        return sums
    with _unnoticed(run.distiller):
        batches = _batches(run, sampler, steps, workers)
        for batch, states in prefetch(batches, run.teachers, run.device):
            losses = batch_losses(run, run.distiller, batch, states, workers).weighted
            for at in range(run.task.idle, len(losses)):
                # Also where a part has no gradient here: it may have one on another worker.
                found = torch.autograd.grad(
                    losses[at], encoder, retain_graph=at + 1 < len(losses), materialize_grads=True
                )
                if workers.size == 1:
                    sums[at] += nn.utils.get_total_norm(found)
                else:
                    whole = workers.sum(torch.cat([part.flatten() for part in found]))
                    sums[at] += whole.norm() / workers.size
    return sums / len(steps)


def scale_terms(
    run: OpenRun, sampler: dict[str, Any], steps: Sequence[int], workers: Workers
) -> None:
    """Measure the scale of the weights, once a run; arguments as for `gradient_norms`."""
    norms = gradient_norms(run, sampler, steps[:SCALE_BATCHES], workers).tolist()
    run.distiller.set_scales(workers.gather(norms)[0])


def gradient_shares(
    run: OpenRun, sampler: dict[str, Any], steps: Sequence[int], workers: Workers
) -> dict[str, float]:
    """Return each part's share of the update of the encoder, by the part's name.

    share_i = n_i / sum over parts j of n_j, with n of `gradient_norms`, on the last of some steps.
    Nothing without terms, or without any gradient.
    """
    if not run.distiller.terms:
        return {}
    batches = SHARE_BATCHES if len(steps) >= LONG_EPOCH else 1
    norms = gradient_norms(run, sampler, steps[-batches:], workers)
    shares = (norms / norms.sum()).tolist()
    return dict(zip(run.distiller.names, shares)) if all(map(math.isfinite, shares)) else {}


def clip_gradients(distiller: Distiller, optimisation: OptimisationConfig) -> None:
    """Shorten the gradient to the largest norm, as a whole or encoder, head and criteria each.

    As a whole, a large gradient of a projection shortens the encoder's step as well.
    """
    if optimisation.clip == "global":
        nn.utils.clip_grad_norm_(distiller.parameters(), optimisation.clip_norm)
        return
    clipped: set[nn.Parameter] = set()
    for part in (encoder_of(distiller.student), distiller.student, distiller.terms):
        group = [parameter for parameter in part.parameters() if parameter not in clipped]
        nn.utils.clip_grad_norm_(group, optimisation.clip_norm)
        clipped.update(group)


def shared_parameters(student: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the encoder that task and terms have in common: all but a pooler."""
    return [
        parameter
        for name, parameter in encoder_of(student).named_parameters()
        if not name.startswith("pooler.")
    ]


def _batches(
    run: OpenRun, state: dict[str, Any], steps: Sequence[int], workers: Workers
) -> Iterator[Batch]:
    sampler, collate = run.sampler(), run.collator(workers.rank, workers.size)
    sampler.load_state(state)
    for step in steps:
        batch = collate(run.texts, sampler.draw(step))
        yield run.task.prepare(batch, run.texts, (run.config.seed, 2, step, workers.rank))


@contextmanager
def _unnoticed(distiller: Distiller) -> Iterator[None]:
    """Compute gradients such that training goes on as if nobody had."""
    state, was_training = random_state(), distiller.training
    distiller.zero_grad(set_to_none=True)  # as the next step would: two gradients at a time
    distiller.eval()
    yield
    distiller.train(was_training)
    restore_random_state(state)
