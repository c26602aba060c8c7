"""The student and the terms of its loss as one module: what is trained, called once a step."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from dsgkd.alignment.batch import Batch
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.criteria import CRITERIA, Criterion
from dsgkd.distillation.criteria.criterion import Pairs
from dsgkd.distillation.teachers.teacher import Teacher
from dsgkd.models.hub import depth
from dsgkd.models.projection import Projection
from dsgkd.models.student import encoder_of
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps, run_model
from dsgkd.plugins import find
from dsgkd.tasks.task import Task

LEAST_SCALE = 1e-3
"""A student that fits its training set already has next to no gradient of the task: its terms
become weak, and are not switched off."""


class Losses(NamedTuple):
    """The loss of one batch, and what it is made of."""

    weighted: Tensor
    """The task's loss, then every term with its weight; their sum is minimised: `[1 + terms]`."""
    raw: Tensor
    """The same without the weights, detached: `[1 + terms]`."""


class Term(nn.Module):
    """One criterion between the student and one of the teachers, with its weight."""

    def __init__(self, name: str, criterion: Criterion, teacher: int, weight: float) -> None:
        super().__init__()
        self.name, self.criterion, self.teacher, self.weight = name, criterion, teacher, weight


class Distiller(nn.Module):
    """A student, its task, and the terms that tie it to its teachers.

    Args:
        student: the model that is trained.
        task: gives the first part of the loss.
        terms: what is matched with which teacher.
        dropout: whether the student drops units while it is trained.
        relative: whether the terms' weights are relative to the task's gradient; then
            `set_scales` has to be called once before training.
    """

    scales: Tensor
    has_scales: Tensor

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        terms: Iterable[Term] = (),
        dropout: bool = True,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.student, self.task, self._dropout = student, task, dropout
        self.terms = nn.ModuleList(terms)
        self._relative = relative and len(self.terms) > 0
        if self._relative:  # part of a checkpoint: a run that goes on does not measure again
            self.register_buffer("scales", torch.ones(len(self.terms)))
            self.register_buffer("has_scales", torch.zeros((), dtype=torch.bool))
        self.names = (task.loss_name, *(term.name for term in self._terms))
        """Of the parts of the loss, in the order of `Losses`."""

    @property
    def _terms(self) -> list[Term]:
        return [term for term in self.terms if isinstance(term, Term)]

    @property
    def teachers(self) -> int:
        """How many teachers the terms need."""
        return max((term.teacher + 1 for term in self._terms), default=0)

    @property
    def same_length(self) -> bool:
        """Whether some term compares positions of both models' texts."""
        return any(term.criterion.same_length for term in self._terms)

    @property
    def weights(self) -> list[float]:
        """Of the terms, as they enter the loss."""
        weights = [term.weight for term in self._terms]
        scales = self.scales.tolist() if self._relative else [1.0] * len(weights)
        return [scale * weight for scale, weight in zip(scales, weights)]

    @property
    def needs_scales(self) -> bool:
        """Whether the terms' weights are relative to a gradient that was not measured yet."""
        return self._relative and not bool(self.has_scales)

    def set_scales(self, norms: Sequence[float]) -> None:
        """Put the terms' weights on the scale of the task's gradient.

        Args:
            norms: of each part's gradient on the encoder, before there was a scale.
        """
        weights = [term.weight for term in self._terms]
        self.scales.copy_(torch.tensor(relative_scales(norms, weights)))
        self.has_scales.fill_(True)

    @property
    def teacher_of_term(self) -> list[int]:
        """Each term's teacher."""
        return [term.teacher for term in self._terms]

    def output(self, batch: Batch, autocast: bool = False) -> Any:
        """Return the student's own output, without any tap."""
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=autocast):
            return run_model(self.student, batch.student)

    def requests(self, teacher: int) -> tuple[TapRequest, TapRequest]:
        """Return what is read of the student for the sake of one teacher, and of that teacher."""
        mine = [term.criterion for term in self._terms if term.teacher == teacher]
        asked = [criterion.requests(criterion.pairs) for criterion in mine]
        ours, theirs = zip(*asked) if asked else ((), ())
        return TapRequest.joined(ours), TapRequest.joined(theirs)

    def projection(self) -> Projection | None:
        """Return what maps the student's last word states onto its teachers', side by side.

        None where no term has learnt such a map of the last layer.
        """
        last = depth(encoder_of(self.student).config)
        found = [term.criterion.projection(last) for term in self._terms]
        known = [Projection(*one) for one in found if one is not None]
        if not known:
            return None
        return Projection(*(torch.cat(parts).detach().float() for parts in zip(*known)))

    def train(self, mode: bool = True) -> "Distiller":
        """Set training mode; a student without dropout stays in evaluation mode."""
        super().train(mode)
        if not self._dropout:
            self.student.eval()
        return self

    def forward(
        self,
        batch: Batch,
        teacher_states: Sequence[WordStates],
        examples: Tensor | float,
        words: Sequence[Tensor | float],
        squares: Tensor | None = None,
    ) -> Losses:
        """Compute the loss of one batch.

        Args:
            batch: the texts.
            teacher_states: each teacher's states of the batch's words.
            examples: what the task's loss is averaged over.
            words: for each teacher, the number of words that its terms are averaged over.
            squares: [2]; what `Criterion.explained` says is added to it.
        """
        asked = [
            (pair.student, self.requests(at)[0])
            for at, pair in enumerate(batch.pairs[: len(teacher_states)])
        ]
        output, student_states = forward_with_taps(self.student, batch.student, asked)
        weighted = [self.task.loss(output, batch, examples)]
        raw = [weighted[0].detach()]
        for number, term in enumerate(self._terms if teacher_states else ()):
            at = term.teacher
            ours, theirs, mask = student_states[at], teacher_states[at], batch.pairs[at].mask
            loss = term.criterion(ours, theirs, mask, words[at])
            weight = term.weight * self.scales[number] if self._relative else term.weight
            weighted.append(weight * loss)
            raw.append(loss.detach())
            if squares is not None and (found := term.criterion.explained(ours, theirs, mask)):
                squares += torch.stack(found)
        return Losses(torch.stack(weighted), torch.stack(raw))

    @torch.no_grad()
    def calibrate(
        self,
        batches: Iterable[Batch],
        teachers: Sequence[Teacher],
        words: int,
        autocast: bool = False,
    ) -> None:
        """Let every criterion start from a sample of words; without any word, nothing changes.

        Args:
            batches: in the order in which training will meet them.
            teachers: the run's.
            words: of each teacher, how many are read at least.
            autocast: let the student read in bf16, as it will in training.
        """
        learning = [t for t in self._terms if type(t.criterion).calibrate != Criterion.calibrate]
        seen: dict[int, list[tuple[WordStates, WordStates]]] = {t.teacher: [] for t in learning}
        counts = dict.fromkeys(seen, 0)
        asked = {at: TapRequest(self.requests(at)[0].hidden_layers) for at in seen}
        was_training = self.student.training
        self.student.eval()
        wanting = list(seen)
        for batch in batches if seen else ():
            device = batch.labels.device.type
            wanted = [(batch.pairs[at].student, asked[at]) for at in wanting]
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                _, student_states = forward_with_taps(self.student, batch.student, wanted)
            for at, ours in zip(wanting, student_states):
                pair = batch.pairs[at]
                theirs = teachers[at].word_states(pair)
                seen[at].append((_of_words(ours, pair.mask), _of_words(theirs, pair.mask)))
                counts[at] += int(pair.mask.sum())
            wanting = [at for at in wanting if counts[at] < words]
            if not wanting:
                break
        self.student.train(was_training)
        for term in learning:
            if counts[term.teacher] >= 2:
                students, others = zip(*seen[term.teacher])
                term.criterion.calibrate(_joined(students), _joined(others))


def relative_scales(norms: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return by what the terms' weights are multiplied, such that 1 is as strong as the task.

    s_i = max(n_task w_i / n_i, LEAST_SCALE), so that the gradient of w_i s_i L_i is w_i times as
    large as the task's

    Without any gradient of the task, as where there is no task, the first term that has one is
    the unit. The scale of a term without a gradient is 1.

    Args:
        norms: of the gradients of the task's loss and of each w_i L_i: [1 + terms].
        weights: w_i, [terms].
    """
    strengths = [n / w if w > 0 else 0.0 for n, w in zip(norms[1:], weights, strict=True)]
    unit = next((size for size in (norms[0], *strengths) if _is_size(size)), 1.0)
    return [max(unit / size, LEAST_SCALE) if _is_size(size) else 1.0 for size in strengths]


def _is_size(norm: float) -> bool:
    return 0 < norm < math.inf


def new_terms(
    config: DistillationConfig,
    student: PretrainedConfig,
    teachers: Sequence[PretrainedConfig],
    max_length: int,
) -> list[Term]:
    """Build the terms that a configuration names, for two or more architectures.

    Raises:
        InputError: a criterion is unknown or does not fit, or a mapping does not exist.
    """
    terms = []
    choices = config.choices
    for wanted in config.weighted:
        for at, (choice, teacher) in enumerate(zip(choices, teachers, strict=True)):
            pairs = choice.mapping.resolve(depth(student), depth(teacher))
            make = find("criterion", wanted.criterion, CRITERIA)
            # The embedding output has no attention, so a mapping of it alone leaves nothing to do.
            if not any(request != TapRequest() for request in make.requests(pairs)):
                continue
            name = wanted.name if len(choices) == 1 else f"{wanted.name}_{at + 1}"
            criterion = make(pairs, student, teacher, max_length)
            terms.append(Term(name, criterion, at, wanted.weight * choice.weight))
    return terms


def teacher_request(config: DistillationConfig, pairs: Pairs) -> TapRequest:
    """Return what the terms of a configuration read of a teacher, for some mapped layers."""
    criteria = [find("criterion", term.criterion, CRITERIA) for term in config.weighted]
    return TapRequest.joined([criterion.requests(pairs)[1] for criterion in criteria])


def _of_words(states: WordStates, mask: Tensor) -> WordStates:
    return WordStates({layer: hidden[mask] for layer, hidden in states.hidden.items()}, {})


def _joined(parts: Sequence[WordStates]) -> WordStates:
    layers = parts[0].hidden
    return WordStates({k: torch.cat([part.hidden[k] for part in parts]).cpu() for k in layers}, {})
