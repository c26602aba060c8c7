"""The teachers of a run: which weights they have, and whether they are stored or live.

A live teacher reads every batch of every epoch. A stored one read every training text once; runs
that follow, with other weights, layers, seeds or students, read the same store.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.populate import populate, words_needed
from dsgkd.distillation.store.shard_storage import shard_storage
from dsgkd.distillation.store.state_kinds import bytes_needed, kinds_of
from dsgkd.distillation.store.states import States
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher, Teacher
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.fingerprint import fingerprint
from dsgkd.models.hub import load_config, load_model
from dsgkd.models.taps import TapRequest

StoreUse = Literal["hit", "miss", "off"]

SHORT_RUN = 2
"""Passes over its texts up to which a single run is not worth a store: filling it costs about one
pass of a live teacher (`make bench`, sections step and store)."""


@dataclass(frozen=True)
class TeacherSource:
    """Everything that decides a teacher's states of a text."""

    name: str
    """As the user gave it."""
    reference: str
    """Local folder or hub id."""
    random_weights_seed: int | None
    """Draw the weights from this seed instead of loading them."""
    max_length: int
    """The most tokens of a text."""
    device: torch.device
    autocast: bool
    """Compute in bf16."""

    @property
    def config(self) -> PretrainedConfig:
        """The architecture."""
        return load_config(self.reference)

    @property
    def key(self) -> str:
        """Name of the weights and the precision they compute in."""
        weights = fingerprint(self.reference, self.random_weights_seed)
        return f"{weights}-{'bf16' if self.autocast else 'fp32'}"

    def load(self) -> PreTrainedModel:
        """Load the frozen model.

        Raises:
            InputError: it cannot be loaded, or reads shorter texts.
        """
        model = load_model(
            self.reference,
            attention_for(self.device),
            random_weights_seed=self.random_weights_seed,
        )
        check_length(model, self.max_length, self.name)
        return model.requires_grad_(False).eval().to(self.device)

    def states(self, store: StoreConfig, cache: Path) -> States:
        """Open the store of this teacher, making it where there is none.

        Raises:
            InputError: the folder or the storage cannot be used.
        """
        label = Path(self.name.split(":")[-1]).name[:40]
        if self.random_weights_seed is not None:
            label += f"-random-{self.random_weights_seed}"
        name = f"{label}-{self.key}"
        states = States(shard_storage(store, cache, name), self.key)
        states.storage.describe({"teacher": label, "key": self.key})
        return states


@lru_cache(maxsize=4)
def live_model(source: TeacherSource) -> PreTrainedModel:
    """Load a live teacher once per process; no run changes it."""
    return source.load()


@lru_cache(maxsize=8)
def open_states(source: TeacherSource, store: StoreConfig, cache: Path) -> States:
    """Open a store once per process."""
    return source.states(store, cache)


@dataclass(frozen=True)
class RunTeacher:
    """One teacher of a run."""

    provider: Teacher
    """Gives its states of the words of a batch."""
    store: StoreUse
    """`hit`: stored before; `miss`: stored for this run, in part or whole; `off`: live."""
    why: str
    """One line for the user."""
    states: States | None = None
    """The store that it reads."""
    by_word: bool = False
    """It looks words up by their names, and reads no text."""

    @property
    def is_stored(self) -> bool:
        """Whether it gives states without a model, from the main memory."""
        return self.states is not None


def open_teacher(
    source: TeacherSource,
    request: TapRequest,
    texts: EncodedTexts,
    position: int,
    distillation: DistillationConfig,
    passes: float,
    store: StoreConfig,
    cache: Path,
) -> RunTeacher:
    """Return one teacher of a run, stored or live, storing what is missing.

    Args:
        source: the teacher.
        request: what is asked of it.
        texts: those of the run's transfer set.
        position: the teacher's among those for which the texts are encoded.
        distillation: of the run.
        passes: how often the run reads its texts.
        store: where teachers are stored.
        cache: the store's folder unless `store` names one.

    Raises:
        InputError: a store was asked for and does not fit its budget, or the model cannot be used.
    """
    view, kinds = texts.teachers[position], kinds_of(request)
    words = words_needed(texts.alignments[position], distillation.max_transfer_words)
    size = bytes_needed(kinds, source.config, words, view.lengths)
    kept, why = choose(distillation.teacher_store, size, store, passes <= SHORT_RUN)
    if not words.any():
        kept, why = False, "live teacher: no text has a word to transfer"
    if not kept:
        live = LiveTeacher(live_model(source), request, source.autocast)
        return RunTeacher(live, "off", why)
    states = open_states(source, store, cache)
    repair = partial(populate, states, view, words, kinds, source.load, source.autocast)
    missed = repair()
    stored = StoredTeacher(states, request, repair)
    return RunTeacher(stored, "miss" if missed else "hit", why, states)


def choose(wanted: str, size: int, store: StoreConfig, is_short: bool) -> tuple[bool, str]:
    """Decide between the stored and the live teacher, and say why.

    Args:
        wanted: `auto`, `live` or `stored`.
        size: what storing would take, in bytes.
        store: holds the budget.
        is_short: a single run that reads its texts a few times.

    Raises:
        InputError: a store is wanted that does not fit its budget.
    """
    needs, budget = readable(size), readable(int(store.budget_gb * 1e9))
    fits = size <= store.budget_gb * 1e9
    if wanted == "stored" and not fits:
        raise InputError(
            "teacher store",
            f"needs {needs}, budget {budget}",
            "keep fewer layers (--teacher-layers, or another layer mapping), raise "
            "--store-budget-gb, or use the live teacher (--teacher-store live)",
        )
    if wanted == "live":
        return False, "live teacher, as asked for"
    if wanted == "stored":
        return True, f"stored teacher, as asked for: {needs}"
    if is_short:
        return False, f"live teacher: the run is short (storing it would take {needs})"
    if not fits:
        return False, f"live teacher: storing it would take {needs}, the budget is {budget}"
    return True, f"stored teacher: {needs}, read once and kept"


def readable(size: int) -> str:
    """Return a number of bytes as a person writes it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"


def check_length(model: nn.Module, max_length: int, name: str) -> None:
    """Refuse a model that reads fewer tokens than it is asked to.

    Raises:
        InputError: it does.
    """
    embeddings = getattr(getattr(model, "base_model", model), "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is None:  # relative positions have no end
        return
    # RoBERTa and its kin count positions from behind the padding index.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    positions = table.num_embeddings - first
    if max_length > positions:
        raise InputError(name, f"reads {positions} tokens, not {max_length}", "lower --max-length")
