"""What do these benchmarks train, on which texts, and what is one step of it?

BERT models with random weights and texts of random tokens, in the library's own data types, so
that its batches, its store and its losses work on them as on real ones. A step is the one of
`dsgkd.training.loop`, in one process.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

from dsgkd.alignment.batches import Batch, training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.data.ragged import Ragged
from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import States
from dsgkd.distillation.teachers.source import RunTeacher
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher
from dsgkd.models.attention import attention_for
from dsgkd.models.student import encoder_of
from dsgkd.models.taps import TapRequest, WordStates
from dsgkd.training.prefetch import feed
from dsgkd.training.run import OptimisationConfig

VOCABULARY = 8000
CLS, SEP, PAD, FIRST = 2, 3, 0, 5
"""Special tokens, and the first id that is none."""
SEED = 17
KEY = "key"
"""Stands for the fingerprint of a teacher."""
T = TypeVar("T")


@dataclass(frozen=True)
class Shape:
    """The size of a BERT."""

    name: str
    layers: int
    width: int
    heads: int

    def __str__(self) -> str:
        return f"{self.name} ({self.layers} x {self.width})"

    def config(self, device: str, attention: str = "") -> BertConfig:
        """Return the architecture, with BERT's usual dropout."""
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            max_position_embeddings=512,
        )
        config._attn_implementation = attention or attention_for(device)
        return config


MINI = Shape("mini", 4, 256, 4)
BASE = Shape("base", 12, 768, 12)
LARGE = Shape("large", 24, 1024, 16)


@dataclass(frozen=True)
class Setting:
    """What all arms of a comparison have in common."""

    shape: Shape
    """Of student and teacher alike."""
    batch: int
    bf16: bool
    words: tuple[int, int] = (20, 30)
    """The fewest and the most words of a text."""
    lengths: tuple[int, int] = (80, 96)
    """The fewest and the most tokens of a text."""
    mapping: str = "uniform"
    device: str = "cpu"

    @property
    def distillation(self) -> DistillationConfig:
        """Hidden states and attention, and no word of a text left out."""
        return DistillationConfig(
            "teacher", mapping=self.mapping, alpha=1.0, beta=1.0, cs_max_len=max(1, self.words[1])
        )

    @property
    def precision(self) -> str:
        """Name of the precision."""
        return "bf16" if self.bf16 else "fp32"


def synthetic_notes(
    texts: int, words: tuple[int, int], lengths: tuple[int, int], seed: int = SEED
) -> EncodedNotes:
    """Invent texts as two tokenizers would leave them.

    Args:
        texts: how many.
        words: the fewest and the most words to transfer of a text, each of 1 to 3 tokens.
        lengths: the fewest and the most tokens of a text, with its two special tokens.
        seed: decides all of it.
    """
    draw = np.random.default_rng(seed)
    counts = draw.integers(words[0], words[1] + 1, texts)

    def side() -> tuple[Ragged, np.ndarray]:
        """Return the tokens of one model, and the spans of all words: [sum of counts, 2]."""
        sizes = draw.integers(lengths[0], lengths[1] + 1, texts)
        ids = draw.integers(FIRST, VOCABULARY, sizes.sum()).astype(np.int32)
        tokens = Ragged.of_lengths(ids, sizes)
        ids[tokens.starts], ids[tokens.starts + sizes - 1] = CLS, SEP
        return tokens, np.concatenate([_spans(draw, *pair) for pair in zip(counts, sizes)])

    (student, student_spans), (teacher, teacher_spans) = side(), side()
    numbers = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    spans = np.column_stack([student_spans, teacher_spans, numbers]).astype(np.int32)
    return EncodedNotes(
        example_ids=[f"text-{number}" for number in range(texts)],
        group_ids=[None] * texts,
        labels=draw.integers(0, 2, texts),
        splits=np.full(texts, "train"),
        label_names=("no", "yes"),
        student=student,
        teacher=teacher,
        words=Ragged.of_lengths(spans, counts),
        teacher_words=Ragged.of_lengths(spans[:, 2:4], counts),
        keys=draw.permutation(texts).astype(np.int64),
        words_found=counts,
        words_unknown=np.zeros((texts, 2), np.int64),
        max_length=512,
        student_pad=PAD,
        teacher_pad=PAD,
    )


def _spans(draw: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Spread words over a text: [count, 2], in order, between the special tokens."""
    room = length - 2
    if count > room:
        raise ValueError(f"{count} words do not fit into {length} tokens")
    tokens = draw.integers(1, 4, count)
    while tokens.sum() > room:
        tokens[draw.choice(np.flatnonzero(tokens > 1))] -= 1
    gaps = draw.multinomial(room - tokens.sum(), np.full(count + 1, 1 / (count + 1)))[:count]
    start = 1 + np.cumsum(gaps) + np.cumsum(tokens) - tokens
    return np.stack([start, start + tokens], axis=1)


def without_teacher(notes: EncodedNotes) -> EncodedNotes:
    """Return the same texts as a run of plain fine-tuning encodes them."""
    none = np.zeros(len(notes), np.int64)
    return replace(
        notes,
        teacher=None,
        words=Ragged.of_lengths(np.zeros((0, 5), np.int32), none),
        teacher_words=Ragged.of_lengths(np.zeros((0, 2), np.int32), none),
        keys=none,
    )


Kind = Literal["plain", "hidden only stored", "stored", "live"]
KINDS: tuple[Kind, ...] = ("plain", "hidden only stored", "stored", "live")


def new_distiller(setting: Setting, kind: Kind, attention: str = "") -> Distiller:
    """Return a student in training mode, with what the kind of run transfers to it."""
    torch.manual_seed(SEED)
    shape, config = setting.shape, setting.distillation
    config = replace(
        config,
        teacher="" if kind == "plain" else config.teacher,
        beta=0.0 if kind == "hidden only stored" else config.beta,
    )
    student = BertForSequenceClassification(shape.config(setting.device, attention))
    pairs = LayerMapping.parse(config.mapping).resolve(shape.layers, shape.layers)
    distiller = Distiller(student, config, pairs, shape.width, shape.width)
    return distiller.train().to(setting.device)


def new_teacher(setting: Setting) -> PreTrainedModel:
    """Return a frozen encoder."""
    torch.manual_seed(SEED + 1)
    model = BertModel(setting.shape.config(setting.device))
    return model.requires_grad_(False).eval().to(setting.device)


def parameter_groups(distiller: Distiller) -> list[dict[str, object]]:
    """Group the parameters as the loop does: by learning rate, and no decay on vectors."""
    wanted = OptimisationConfig()
    encoder = {id(parameter) for parameter in encoder_of(distiller.student).parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in distiller.named_parameters():
        rate = wanted.encoder_lr if id(parameter) in encoder else wanted.classifier_lr
        if name.startswith("projections."):
            rate = wanted.projection_lr
        decay = wanted.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


class Arm:
    """One kind of training: its batches as the library feeds them, and its step.

    Args:
        setting: what the arms have in common.
        kind: what this one trains with.
        notes: the texts.
        folder: a filled store, for the kinds that read one.
        attention: of the student; by default the library's choice for the device.
    """

    def __init__(
        self,
        setting: Setting,
        kind: Kind,
        notes: EncodedNotes,
        folder: Path | None = None,
        attention: str = "",
    ) -> None:
        self.setting, self.kind = setting, kind
        self.distiller = new_distiller(setting, kind, attention)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.distiller), eps=OptimisationConfig().adam_epsilon, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)
        self.teacher: RunTeacher | None = None
        request = self.distiller.teacher_request
        if kind == "plain":
            self.notes = without_teacher(notes)
        elif kind == "live":
            self.notes = notes
            live = LiveTeacher(new_teacher(setting), request, setting.bf16)
            self.teacher = RunTeacher(live, "off", "")
        else:
            assert folder is not None
            self.notes = replace(notes, teacher=None)
            states = States(ShardStorage(folder), KEY)
            stored = StoredTeacher(states, request, _never)
            self.teacher = RunTeacher(stored, "hit", "", states)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield an epoch of batches: the same texts in the same order in every arm."""
        most = self.setting.distillation.cs_max_len
        return training_batches(self.notes, self.setting.batch, most, SEED, 0, start=start)

    def fed(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, WordStates | None]]:
        """Yield batches on the device, with what the teacher says, as the loop gets them."""
        run = SimpleNamespace(teacher=self.teacher, device=torch.device(self.setting.device))
        return feed(run, batches)  # type: ignore[arg-type]  # it reads nothing else of a run

    def step(self, batch: Batch, taught: WordStates | None) -> Tensor:
        """Take one step, line by line that of `dsgkd.training.loop`."""
        words_here = batch.word_mask.sum().float()
        counts = torch.stack([torch.full_like(words_here, len(batch.labels)), words_here])
        examples, words = counts
        device, bf16 = self.setting.device, self.setting.bf16
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            losses = torch.stack(self.distiller(batch, taught, examples, words))
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        nn.utils.clip_grad_norm_(self.distiller.parameters(), OptimisationConfig().clip_norm)
        self.optimizer.step()
        self.schedule.step()
        return losses.detach()

    def warm_up(self) -> None:
        """Take a step at every padded length, so that no arm pays for what all of them use."""
        first = {batch.student.input_ids.shape[1]: n for n, batch in enumerate(self.batches())}
        for number in first.values():
            for pair in self.fed(_first(self.batches(number))):
                self.step(*pair)
        synchronise(self.setting.device)

    def endless(self) -> Iterator[tuple[Batch, WordStates | None]]:
        """Yield the batches of an epoch over and over."""
        return self.fed(batch for _ in cycle([0]) for batch in self.batches())


def _never() -> None:
    raise AssertionError("the store of a benchmark is whole")


def _first(items: Iterator[T]) -> Iterator[T]:
    yield next(items)


def synchronise(device: str) -> None:
    """Wait for a GPU; a CPU is never ahead."""
    if device == "cuda":
        torch.cuda.synchronize()


def fill_store(
    setting: Setting, notes: EncodedNotes, folder: Path, request: TapRequest | None = None
) -> None:
    """Let the teacher read all texts into a store on disk."""
    request = request or new_distiller(setting, "stored").teacher_request
    populate(
        States(ShardStorage(folder), KEY),
        notes,
        words_needed(notes, setting.distillation.cs_max_len),
        kinds_of(request),
        partial(new_teacher, setting),
        setting.bf16,
    )


@contextmanager
def arms_of(
    setting: Setting, kinds: Sequence[Kind], texts: int, seed: int = SEED
) -> Iterator[dict[Kind, Arm]]:
    """Make arms on the same texts, warmed up, with a store on disk while they are in use."""
    notes = synthetic_notes(texts, setting.words, setting.lengths, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        if any("stored" in kind for kind in kinds):
            fill_store(setting, notes, store)
        arms = {kind: Arm(setting, kind, notes, store) for kind in kinds}
        for arm in arms.values():
            arm.warm_up()
        yield arms


def step_seconds(arms: Mapping[T, Arm], rounds: int) -> dict[T, list[float]]:
    """Time the k-th step of every arm in the k-th round: its batch, its teacher, its update.

    All arms see the same texts in a round; who goes first changes from round to round.
    """
    fed = {name: arm.endless() for name, arm in arms.items()}

    def step(name: T) -> None:
        arms[name].step(*next(fed[name]))
        synchronise(arms[name].setting.device)

    try:
        return in_turns({name: partial(step, name) for name in arms}, rounds)
    finally:
        for batches in fed.values():
            batches.close()  # type: ignore[attr-defined]


def in_turns(actions: Mapping[T, Callable[[], object]], rounds: int) -> dict[T, list[float]]:
    """Time each action once a round; whoever began goes last in the next."""
    seconds: dict[T, list[float]] = {name: [] for name in actions}
    order = list(actions)
    for _ in range(rounds):
        for name in order:
            started = time.perf_counter()
            actions[name]()
            seconds[name].append(time.perf_counter() - started)
        order.append(order.pop(0))
    return seconds
