"""How does a teacher read the texts that are missing from its store?

In chunks, each of which becomes one shard: whoever is killed loses the chunk under way, and the
next pass asks for what is missing. Inside a chunk texts are read by length, without gradient.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from dsgkd.alignment.batches import teacher_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.distillation.store.shard import write_shard
from dsgkd.distillation.store.state_kinds import StateKind, bytes_needed, request_of
from dsgkd.distillation.store.states import States
from dsgkd.models.taps import WordStates, forward_with_taps
from dsgkd.storage.lease import Lease
from dsgkd.storage.location import Location

Array = NDArray[Any]

SHARD_BYTES = 64_000_000
"""A shard is at most about this large: small enough to lose, large enough to be few."""
TOKENS_A_STEP = 8192
"""Tokens that the teacher reads at once."""


def words_needed(notes: EncodedNotes, cs_max_len: int) -> Array:
    """Return how many of the teacher's words are needed of each text, [notes] int64.

    They reach up to the last word that is transferred when at most `cs_max_len` are.
    """
    counts = np.minimum(notes.words.lengths, cs_max_len)
    last = np.maximum(notes.words.starts + counts - 1, 0)
    if not len(notes.words.values):
        return np.zeros(len(notes), np.int64)
    return np.where(counts > 0, notes.words.values[last, 4] + 1, 0).astype(np.int64)


def chunks(
    notes: EncodedNotes,
    rows: Array,
    words: Array,
    parts: Sequence[StateKind],
    config: PretrainedConfig,
    workers: int = 1,
) -> list[Array]:
    """Cut the rows of missing texts into chunks: one shard each, and some for every worker."""
    assert notes.teacher is not None
    if not len(rows):
        return []
    size = bytes_needed(parts, config, words[rows], notes.teacher.lengths[rows])
    count = max(-(-size // SHARD_BYTES), 2 * workers if workers > 1 else 1)
    return [chunk for chunk in np.array_split(rows, min(count, len(rows))) if len(chunk)]


@torch.inference_mode()
def populate_chunk(
    states: States,
    notes: EncodedNotes,
    rows: Array,
    words: Array,
    parts: Sequence[StateKind],
    model: PreTrainedModel,
    autocast: bool,
) -> None:
    """Let the teacher read some texts, and store what it says in one shard.

    Args:
        states: where to store it.
        notes: the texts.
        rows: [chunk], which of them.
        words: [notes], how many words of each are to be stored.
        parts: which states.
        model: the teacher.
        autocast: compute in bf16.

    Raises:
        InputError: the shard cannot be written, or the model's attention cannot be read.
    """
    assert notes.teacher is not None
    request = request_of(parts)
    gathered: dict[StateKind, list[Array]] = {part: [] for part in parts}
    order: list[Array] = []
    for mine, side in teacher_batches(notes, rows, words, TOKENS_A_STEP):
        side = side.to(model.device)
        mask = side.spans[..., 1] > side.spans[..., 0]  # [batch, words]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            _, said = forward_with_taps(model, side, request)
        order.append(mine)
        for part in parts:
            gathered[part].append(_ragged(part, said, mask, side.attention_mask))
    read = np.concatenate(order)
    path = write_shard(
        states.storage.folder,
        states.teacher,
        notes.keys[read],
        words[read],
        notes.teacher.lengths[read],
        {part: np.concatenate(arrays) for part, arrays in gathered.items()},
    )
    states.storage.keep(path)


def _ragged(part: StateKind, said: WordStates, mask: Tensor, tokens: Tensor) -> Array:
    """Drop the padding: [sum of sizes, width], the texts one after the other."""
    if part.kind == "hidden":
        return said.hidden[part.layer][mask].half().cpu().numpy()
    rows = said.attention[part.layer].movedim(1, -1)  # [batch, words, words or length, heads]
    columns = mask if part.kind == "words" else tokens.bool()
    return rows[mask[:, :, None] & columns[:, None, :]].half().cpu().numpy()


def populate(
    states: States,
    notes: EncodedNotes,
    words: Array,
    parts: Sequence[StateKind],
    load: Callable[[], PreTrainedModel],
    autocast: bool,
) -> bool:
    """Store what is missing, in this process; return whether anything was.

    Processes that want the same at once wait for the first of them.
    """
    if not len(states.missing(notes.keys, words, parts)):
        return False
    states.storage.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Lease(Location(states.storage.folder), ".filling.lock", wait=math.inf):
        states.reopen()
        rows = states.missing(notes.keys, words, parts)
        if not len(rows):
            return False
        for damaged in states.refused:
            states.storage.discard(damaged.path)
        model = load()
        for chunk in chunks(notes, rows, words, parts, model.config):
            populate_chunk(states, notes, chunk, words, parts, model, autocast)
    states.reopen()
    return True
