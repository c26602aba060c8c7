"""A training step the way the DSG-KD reference takes it.

An own rendition of the algorithm, written from a description of it (arXiv 2409.14904), to be
measured against and to be compared with the library's paper preset, whose losses it must give.
In every step it tokenises every text word by word with both tokenizers, pads to `max_length`, asks
both models for the attention of all layers, and loops over texts, words and layers to cut the
words' rows out. It is slow where the original is slow and has no other faults of it on purpose.
It depends on nothing of the library.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Span = tuple[int, int]


class Reading(NamedTuple):
    """What one model is given of one text, or, stacked, of a batch."""

    input_ids: Tensor  # [max_length] or [batch, max_length]
    attention_mask: Tensor  # the same


class TermLosses(NamedTuple):
    """The terms of a step, each with its weight in; their sum is what is minimised."""

    classification: Tensor
    hidden: Tensor
    attention: Tensor


def word_spans(
    text: str,
    teacher: PreTrainedTokenizerBase,
    student: PreTrainedTokenizerBase,
    max_length: int,
    most: int,
) -> list[tuple[Span, Span]]:
    """Find the (teacher, student) token spans of the first `most` words of ASCII letters.

    Every word of the text is tokenised alone, twice; the counts so far tell where it stands behind
    [CLS]. The scan ends at a word that has no room left in either model, and a span never reaches
    the last position, where [SEP] is.
    """
    last = max_length - 1
    spans: list[tuple[Span, Span]] = []
    teacher_start = student_start = 1
    for word in text.split(" "):
        teacher_end = teacher_start + len(teacher.tokenize(word))
        student_end = student_start + len(student.tokenize(word))
        if teacher_start >= last or student_start >= last or len(spans) == most:
            break
        if word.isascii() and word.isalpha():
            teacher_span = (teacher_start, min(teacher_end, last))
            spans.append((teacher_span, (student_start, min(student_end, last))))
        teacher_start, student_start = teacher_end, student_end
    return spans


def padded(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Reading:
    """Tokenise a whole text, cut and padded to `max_length`."""
    encoding = tokenizer(
        text, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    )
    return Reading(encoding["input_ids"][0], encoding["attention_mask"][0])


def span_losses(
    teacher_hidden: Sequence[Tensor],  # layers + 1 of [batch, length, width]
    student_hidden: Sequence[Tensor],
    teacher_attention: Sequence[Tensor],  # layers of [batch, heads, length, length]
    student_attention: Sequence[Tensor],
    spans: Sequence[Sequence[tuple[Span, Span]]],
) -> tuple[Tensor, Tensor]:
    """Return the hidden and the attention loss, unweighted, with one slice per word and layer.

    Both are mean squared differences over the words of the batch, the layers and all that a layer
    holds of a word: its mean state, and its mean attention row over the padded length.
    """
    states: list[tuple[Tensor, Tensor]] = []
    rows: list[tuple[Tensor, Tensor]] = []
    for b, text in enumerate(spans):
        for (ts, te), (ss, se) in text:
            for t, s in zip(teacher_hidden, student_hidden, strict=True):
                states.append((t[b, ts:te].mean(0), s[b, ss:se].mean(0)))
            for t, s in zip(teacher_attention, student_attention, strict=True):
                rows.append((t[b, :, ts:te, :].mean(1), s[b, :, ss:se, :].mean(1)))
    if not states:  # the original crashes here
        nothing = student_hidden[0].sum() * 0
        return nothing, nothing
    return _mean_square(states), _mean_square(rows)


def _mean_square(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    theirs, ours = zip(*pairs)
    return F.mse_loss(torch.stack(ours), torch.stack(theirs))


class Student(nn.Module):
    """Encoder, pooler, and two linear layers."""

    def __init__(self, encoder: PreTrainedModel, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, classes),
        )


@dataclass
class ReferenceTraining:
    """Both models, both tokenizers and an optimizer: all that a step needs.

    The encoders have to be loaded with `attn_implementation="eager"`: no other gives attentions.
    """

    teacher: PreTrainedModel
    student: Student
    teacher_tokenizer: PreTrainedTokenizerBase
    student_tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer | None = None
    alpha: float = 0.6
    beta: float = 0.2
    max_length: int = 384
    most_words: int = 32
    clip_norm: float = 1.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Where the time of the last step went."""

    def losses(self, texts: Sequence[str], labels: Tensor) -> TermLosses:
        """Compute the losses of some texts, from the texts on."""
        marks = [time.perf_counter()]
        spans, for_teacher, for_student = self._prepared(texts)
        marks.append(time.perf_counter())
        with torch.no_grad():
            teacher = self.teacher(
                **for_teacher._asdict(), output_hidden_states=True, output_attentions=True
            )
        marks.append(time.perf_counter())
        student = self.student.encoder(
            **for_student._asdict(), output_hidden_states=True, output_attentions=True
        )
        logits = self.student.head(student.pooler_output)
        marks.append(time.perf_counter())
        hidden, attention = span_losses(
            teacher.hidden_states,
            student.hidden_states,
            teacher.attentions,
            student.attentions,
            spans,
        )
        losses = TermLosses(
            F.cross_entropy(logits, labels), self.alpha * hidden, self.beta * attention
        )
        marks.append(time.perf_counter())
        names = ("tokenising", "teacher", "student", "loss")
        self.seconds = {
            name: end - start for name, start, end in zip(names, marks, marks[1:], strict=False)
        }
        return losses

    def step(self, texts: Sequence[str], labels: Tensor) -> TermLosses:
        """Take one optimisation step."""
        assert self.optimizer is not None
        losses = self.losses(texts, labels)
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()
        self.seconds["backward"] = time.perf_counter() - started
        started = time.perf_counter()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.clip_norm)
        self.optimizer.step()
        self.seconds["optimizer"] = time.perf_counter() - started
        return losses

    def _prepared(
        self, texts: Sequence[str]
    ) -> tuple[list[list[tuple[Span, Span]]], Reading, Reading]:
        """Tokenise a batch; nothing of it is kept for the next epoch."""
        tokenizers = (self.teacher_tokenizer, self.student_tokenizer)
        spans = [word_spans(text, *tokenizers, self.max_length, self.most_words) for text in texts]
        readings = []
        for tokenizer in tokenizers:
            read = [padded(text, tokenizer, self.max_length) for text in texts]
            readings.append(Reading(*(torch.stack(tensors) for tensors in zip(*read))))
        return spans, *readings
