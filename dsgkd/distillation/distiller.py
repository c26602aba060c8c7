"""The student and the terms of its loss as one module: what is trained, called once a step."""

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
    """

    def __init__(
        self, student: nn.Module, task: Task, terms: Iterable[Term] = (), dropout: bool = True
    ) -> None:
        super().__init__()
        self.student, self.task, self._dropout = student, task, dropout
        self.terms = nn.ModuleList(terms)
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
        """Of the terms."""
        return [term.weight for term in self._terms]

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
        for term in self._terms if teacher_states else ():
            at = term.teacher
            ours, theirs, mask = student_states[at], teacher_states[at], batch.pairs[at].mask
            loss = term.criterion(ours, theirs, mask, words[at])
            weighted.append(term.weight * loss)
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
