"""The student and its losses as one module: what is trained, in a form that one step can call."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from dsgkd.alignment.batches import Batch
from dsgkd.distillation.criteria import (
    paper_attention_loss,
    paper_hidden_loss,
    projected_hidden_loss,
    word_attention_loss,
)
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.teachers.teacher import Teacher
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps

Form = Literal["standard", "paper"]
TeacherWeights = Literal["pretrained", "random"]
TeacherStore = Literal["auto", "live", "stored"]


@dataclass(frozen=True)
class DistillationConfig:
    """What is transferred from teacher to student, and how strongly."""

    teacher: str = ""
    """Name of the zoo, hub id or local folder; empty: plain fine-tuning."""
    teacher_weights: TeacherWeights = "pretrained"
    """`random`: the same architecture with random weights, the control that knows nothing."""
    shuffled: bool = False
    """Each word is given another word's states: the control in which teacher and text do not fit
    together."""
    form: Form = "standard"
    """`standard`: projected, standardised states. `paper`: raw squares (arXiv 2409.14904)."""
    mapping: str = "uniform"
    """Layer mapping, in the notation of `LayerMapping`; the paper form needs uniform+emb."""
    alpha: float = 1.0
    """Weight of the hidden-state loss, at least 0."""
    beta: float = 0.0
    """Weight of the attention loss, at least 0."""
    cs_max_len: int = 32
    """At most this many words of a text are transferred."""
    calibration_words: int = 2000
    """Words on which states are standardised and projections initialised."""
    teacher_store: TeacherStore = "auto"
    """`stored`: the teacher reads every text once, and its states are kept; `live`: it reads
    every batch; `auto`: stored where it is worth it and fits the budget."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not getattr(self, name) >= 0:
                raise InputError(name, f"{getattr(self, name)} is negative", "give 0 or more")
        if self.cs_max_len < 1:
            raise InputError("cs_max_len", f"{self.cs_max_len} is no count", "give 1 or more")
        LayerMapping.parse(self.mapping)


class Losses(NamedTuple):
    """The terms of one step, each with its weight in; their sum is what is minimised."""

    classification: Tensor
    hidden: Tensor
    attention: Tensor


class Distiller(nn.Module):
    """A student, and the projections from its layers into the teacher's.

    Args:
        student: model with a classification head.
        config: what to transfer.
        pairs: mapped (student layer, teacher layer), 0 = embedding output.
        student_width: hidden size of the student.
        teacher_width: hidden size of the teacher.
        max_length: the length to which the paper pads texts; None: that of the batch.
    """

    teacher_mean: Tensor
    teacher_scale: Tensor

    def __init__(
        self,
        student: nn.Module,
        config: DistillationConfig,
        pairs: tuple[tuple[int, int], ...] = (),
        student_width: int = 0,
        teacher_width: int = 0,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.max_length = max_length
        self.pairs = pairs if config.teacher else ()
        hidden = self.pairs if config.alpha > 0 else ()
        attention = tuple((s, t) for s, t in self.pairs if s > 0) if config.beta > 0 else ()
        columns: Literal["positions", "words"] = "positions" if config.form == "paper" else "words"
        self.student_request = TapRequest(
            tuple(dict.fromkeys(s for s, _ in hidden)),
            tuple(dict.fromkeys(s for s, _ in attention)),
            columns,
            attention_dropout=config.form == "paper",
        )
        self.teacher_request = TapRequest(
            tuple(dict.fromkeys(t for _, t in hidden)),
            tuple(dict.fromkeys(t for _, t in attention)),
            columns,
        )
        self._hidden_pairs, self._attention_pairs = hidden, attention
        self.projections = nn.ModuleList()
        if hidden and config.form == "standard":
            for _ in hidden:
                self.projections.append(nn.Linear(student_width, teacher_width))
            self.register_buffer("teacher_mean", torch.zeros(len(hidden), teacher_width))
            self.register_buffer("teacher_scale", torch.ones(len(hidden), teacher_width))
        elif hidden and student_width != teacher_width:
            raise InputError(
                "paper form",
                f"student width {student_width} and teacher width {teacher_width} differ",
                "use the standard form",
            )

    @property
    def distils(self) -> bool:
        """Whether any term needs the teacher."""
        return bool(self._hidden_pairs or self._attention_pairs)

    @property
    def compares_positions(self) -> bool:
        """Whether column j of one model's attention is compared with column j of the other's."""
        return bool(self._attention_pairs) and self.config.form == "paper"

    def forward(
        self,
        batch: Batch,
        taught: WordStates | None,
        examples: Tensor | float,
        words: Tensor | float,
    ) -> Losses:
        """Compute the losses of one batch.

        Args:
            batch: the notes.
            taught: the teacher's states of the batch's words; None without distillation.
            examples: number of examples the cross-entropy is averaged over.
            words: number of words the distillation terms are averaged over.
        """
        request = TapRequest() if taught is None else self.student_request
        output, learnt = forward_with_taps(self.student, batch.student, request)
        # A part of the model, so in the run's own precision; only losses need float32.
        projected = [
            project(learnt.hidden[s])
            for project, (s, _) in zip(self.projections if taught else (), self._hidden_pairs)
        ]
        with torch.autocast(batch.labels.device.type, enabled=False):
            logits = output.logits[: len(batch.labels)].float()
            classification = F.cross_entropy(logits, batch.labels, reduction="sum") / examples
            hidden = attention = torch.zeros((), device=logits.device)
            if taught is not None:
                if self._hidden_pairs:
                    students = projected or [learnt.hidden[s] for s, _ in self._hidden_pairs]
                    hidden = self.config.alpha * self._hidden(batch, students, taught, words)
                if self._attention_pairs:
                    attention = self.config.beta * self._attention(batch, learnt, taught, words)
        return Losses(classification, hidden, attention)

    def _hidden(
        self, batch: Batch, students: list[Tensor], taught: WordStates, words: Tensor | float
    ) -> Tensor:
        teachers = [taught.hidden[t] for _, t in self._hidden_pairs]
        if self.config.form == "paper":
            return paper_hidden_loss(teachers, students, batch.word_mask, words)
        standardised = [
            (state - mean) / scale
            for state, mean, scale in zip(teachers, self.teacher_mean, self.teacher_scale)
        ]
        projected = [state.float() for state in students]
        return projected_hidden_loss(standardised, projected, batch.word_mask, words)

    def _attention(
        self, batch: Batch, learnt: WordStates, taught: WordStates, words: Tensor | float
    ) -> Tensor:
        students = [learnt.attention[s] for s, _ in self._attention_pairs]
        teachers = [taught.attention[t] for _, t in self._attention_pairs]
        if self.config.form == "paper":
            return paper_attention_loss(teachers, students, batch.word_mask, words, self.max_length)
        return word_attention_loss(teachers, students, batch.word_mask, words)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch], teacher: Teacher, autocast: bool = False) -> None:
        """Standardise the teacher's states and start the projections at ridge regression.

        Reads batches until `calibration_words` words were seen. The penalty is chosen by
        leave-one-out error (scikit-learn's RidgeCV). Without any word, nothing changes.

        Args:
            batches: in the order in which training will meet them.
            teacher: the run's.
            autocast: let the student read in bf16, as it will in training.
        """
        if not self.projections:
            return
        was_training = self.student.training
        self.student.eval()
        hidden_only = TapRequest(self.student_request.hidden_layers)
        seen: list[tuple[list[Tensor], list[Tensor]]] = []
        words = 0
        for batch in batches:
            taught = teacher.word_states(batch)
            with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=autocast):
                _, learnt = forward_with_taps(self.student, batch.student, hidden_only)
            mask = batch.word_mask
            seen.append(
                (
                    [learnt.hidden[s][mask] for s, _ in self._hidden_pairs],
                    [taught.hidden[t][mask] for _, t in self._hidden_pairs],
                )
            )
            words += int(mask.sum())
            if words >= self.config.calibration_words:
                break
        self.student.train(was_training)
        if words < 2:
            return
        for i, projection in enumerate(self.projections):
            student = torch.cat([students[i] for students, _ in seen]).double().cpu()
            taught_states = torch.cat([teachers[i] for _, teachers in seen]).double().cpu()
            mean, scale = taught_states.mean(0), taught_states.std(0).clamp(min=1e-3)
            self.teacher_mean[i], self.teacher_scale[i] = mean, scale
            penalties = words * torch.logspace(-3, 0, 4).double().numpy()
            ridge = RidgeCV(penalties).fit(
                student.numpy(), ((taught_states - mean) / scale).numpy()
            )
            assert isinstance(projection, nn.Linear)
            projection.weight.copy_(torch.from_numpy(ridge.coef_))
            projection.bias.copy_(torch.from_numpy(ridge.intercept_))
