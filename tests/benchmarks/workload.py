"""What the benchmarks train: BERT models with random weights on texts of random tokens.

Everything else is the library's: a run that is open, its sampler and collator, its store on disk,
and a step of its loop in one process.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedModel

from dsgkd.alignment.alignment import Alignment
from dsgkd.alignment.batch import Batch
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.data.ragged import Ragged
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.distiller import Distiller, new_terms
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import States
from dsgkd.distillation.teachers.source import RunTeacher
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher
from dsgkd.models.attention import attention_for
from dsgkd.models.taps import TapRequest, WordStates
from dsgkd.tasks import Classification
from dsgkd.training.config import OptimisationConfig, RunConfig
from dsgkd.training.loop import new_optimizer, take_step, training_batches
from dsgkd.training.opening import OpenRun
from dsgkd.training.prefetch import prefetch
from dsgkd.training.workers import Workers

VOCABULARY = 8000
CLS, SEP, PAD, FIRST = 2, 3, 0, 5
"""Special tokens, and the first id that is none."""
POSITIONS = 512
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
            max_position_embeddings=POSITIONS,
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
        most = max(1, self.words[1])
        return DistillationConfig(
            "teacher", mapping=self.mapping, alpha=1.0, beta=1.0, max_transfer_words=most
        )

    @property
    def precision(self) -> str:
        """Name of the precision."""
        return "bf16" if self.bf16 else "fp32"

    def texts(self, count: int, seed: int = SEED) -> EncodedTexts:
        """Invent so many texts."""
        return synthetic_texts(count, self.words, self.lengths, seed)


def synthetic_texts(
    count: int, words: tuple[int, int], lengths: tuple[int, int], seed: int = SEED
) -> EncodedTexts:
    """Invent texts as a student and a teacher would read them.

    Args:
        count: how many.
        words: the fewest and the most words to transfer of a text, each of 1 to 3 tokens.
        lengths: the fewest and the most tokens of a text, with its two special tokens.
        seed: decides all of it.
    """
    draw = np.random.default_rng(seed)
    counts = draw.integers(words[0], words[1] + 1, count)

    def view() -> View:
        sizes = draw.integers(lengths[0], lengths[1] + 1, count)
        ids = draw.integers(FIRST, VOCABULARY, sizes.sum()).astype(np.int32)
        tokens = Ragged.of_lengths(ids, sizes)
        ids[tokens.starts], ids[tokens.starts + sizes - 1] = CLS, SEP
        spans = np.concatenate([_spans(draw, *pair) for pair in zip(counts, sizes)])
        return View(tokens, Ragged.of_lengths(spans.astype(np.int32), counts), PAD, POSITIONS)

    student, teacher = view(), view()
    return replace(
        EncodedTexts.of_view(student, "labelled", "train"),
        labels=draw.integers(0, 2, count),
        teachers=(teacher,),
        alignments=(Alignment.of(student, teacher),),
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


Kind = Literal["plain", "hidden only stored", "stored", "live"]
KINDS: tuple[Kind, ...] = ("plain", "hidden only stored", "stored", "live")


def new_distiller(setting: Setting, kind: Kind = "stored", attention: str = "") -> Distiller:
    """Return a student in training mode, with the terms of an arm."""
    torch.manual_seed(SEED)
    config = replace(
        setting.distillation,
        teacher="" if kind == "plain" else "teacher",
        beta=0.0 if kind == "hidden only stored" else 1.0,
    )
    shape = setting.shape.config(setting.device, attention)
    student = BertForSequenceClassification(shape)
    terms = new_terms(config, shape, [shape for _ in config.choices], POSITIONS)
    return Distiller(student, Classification(), terms).train().to(setting.device)


def request(setting: Setting) -> TapRequest:
    """Return what a teacher is asked."""
    return new_distiller(setting).requests(0)[1]


def new_teacher(setting: Setting) -> PreTrainedModel:
    """Return a frozen encoder."""
    torch.manual_seed(SEED + 1)
    model = BertModel(setting.shape.config(setting.device))
    return model.requires_grad_(False).eval().to(setting.device)


class Trainer:
    """A run that is open, and what a step of the loop needs besides."""

    def __init__(self, run: OpenRun) -> None:
        self.run = run
        run.distiller.train()
        self.optimizer = new_optimizer(run)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the first epoch."""
        sampler = self.run.sampler()
        return training_batches(self.run, sampler, start, sampler.steps, Workers())

    def fed(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[WordStates]]]:
        """Yield batches on the device, with the teacher's states, as the loop gets them."""
        return prefetch(batches, self.run.teachers, self.run.device)

    def endless(self) -> Iterator[tuple[Batch, list[WordStates]]]:
        """Yield the batches of the first epoch over and over."""
        return self.fed(batch for _ in cycle([0]) for batch in self.batches())

    def step(self, batch: Batch, states: Sequence[WordStates]) -> None:
        """Take one step of the loop."""
        run = self.run
        take_step(run, run.distiller, batch, states, self.optimizer, self.schedule, Workers())

    def step_on(self, number: int) -> None:
        """Take a step on one batch of the first epoch."""
        self.step(*next(self.fed(self.batches(number))))


class Arm(Trainer):
    """One kind of training: the same texts in the same order in every arm.

    Args:
        setting: what the arms have in common.
        kind: what this one trains with.
        texts: those to train on.
        folder: a store that is populated, for the kinds that read one.
        attention: of the student; by default the library's choice for the device.
    """

    def __init__(
        self,
        setting: Setting,
        kind: Kind,
        texts: EncodedTexts,
        folder: Path | None = None,
        attention: str = "",
    ) -> None:
        self.setting = setting
        distiller = new_distiller(setting, kind, attention)
        asked, teachers = distiller.requests(0)[1], []
        if kind == "live":
            live = LiveTeacher(new_teacher(setting), asked, setting.bf16)
            teachers.append(RunTeacher(live, "off", ""))
        elif kind != "plain":
            assert folder is not None
            states = States(ShardStorage(folder), KEY)
            teachers.append(RunTeacher(StoredTeacher(states, asked, _never), "hit", "", states))
        config = RunConfig(
            distillation=setting.distillation,
            optimisation=OptimisationConfig(batch_size=setting.batch),
            seed=SEED,
        )
        run = OpenRun(
            config=config,
            task=config.task,
            texts=texts if teachers else texts.alone(),
            validation=texts,
            label_names=("no", "yes"),
            fingerprint="",
            tokenizer=None,  # type: ignore[arg-type]  # the texts are tokens already
            distiller=distiller,
            teachers=tuple(teachers),
            device=torch.device(setting.device),
            autocast=setting.bf16,
        )
        super().__init__(run)

    def warm_up(self) -> None:
        """Take a step at every padded length, so that no arm pays for what all of them use."""
        first = {batch.student.input_ids.shape[1]: n for n, batch in enumerate(self.batches())}
        for number in first.values():
            self.step_on(number)
        synchronise(self.setting.device)


def _never() -> None:
    raise AssertionError("the store of a benchmark is whole")


def synchronise(device: str) -> None:
    """Wait for a GPU; a CPU is never ahead."""
    if device == "cuda":
        torch.cuda.synchronize()


def populate_store(setting: Setting, texts: EncodedTexts, folder: Path) -> None:
    """Let the teacher read all texts into a store on disk."""
    populate(
        States(ShardStorage(folder), KEY),
        texts.teachers[0],
        words_needed(texts.alignments[0], setting.distillation.max_transfer_words),
        kinds_of(request(setting)),
        partial(new_teacher, setting),
        setting.bf16,
    )


@contextmanager
def arms_of(
    setting: Setting, kinds: Sequence[Kind], count: int, seed: int = SEED
) -> Iterator[dict[Kind, Arm]]:
    """Make arms on the same texts, warmed up, with a store on disk while they are in use."""
    texts = setting.texts(count, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        if any("stored" in kind for kind in kinds):
            populate_store(setting, texts, store)
        arms = {kind: Arm(setting, kind, texts, store) for kind in kinds}
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
        close(fed.values())


def close(batches: Any) -> None:
    """Let the threads end that prepare batches."""
    for one in batches:
        one.close()


def in_turns(actions: Mapping[T, Callable[[], object]], rounds: int) -> dict[T, list[float]]:
    """Time each action once a round; whoever began goes last in the next."""
    seconds: dict[T, list[float]] = {name: [] for name in actions}
    order = list(actions)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(spent(actions[name]))
        order.append(order.pop(0))
    return seconds


def spent(action: Callable[[], object]) -> float:
    """Time an action once."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def apart(context: BaseContext, action: Callable[[], T]) -> T:
    """Return what an action returns, from a process that did nothing else."""
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(action).result(timeout=3600)


def parameter_count(module: nn.Module) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())
