"""A teacher's pass over the texts that are missing from its store.

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

from dsgkd.alignment.alignment import Alignment
from dsgkd.alignment.batch import teacher_batches
from dsgkd.alignment.view import View
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


def words_needed(alignment: Alignment, max_words: int) -> Array:
    """Return how many of the teacher's words are needed of each text, [texts] int64.

    They reach up to the last word that is transferred when at most `max_words` are.
    """
    words = alignment.words
    counts = np.minimum(words.lengths, max_words)
    last = np.maximum(words.starts + counts - 1, 0)
    if not len(words.values):
        return np.zeros(len(words), np.int64)
    return np.where(counts > 0, words.values[last, 4] + 1, 0).astype(np.int64)


def chunks(
    view: View,
    rows: Array,
    words: Array,
    parts: Sequence[StateKind],
    config: PretrainedConfig,
    workers: int = 1,
) -> list[Array]:
    """Cut the rows of missing texts into chunks: one shard each, and some for every worker."""
    if not len(rows):
        return []
    size = bytes_needed(parts, config, words[rows], view.lengths[rows])
    count = max(-(-size // SHARD_BYTES), 2 * workers if workers > 1 else 1)
    return [chunk for chunk in np.array_split(rows, min(count, len(rows))) if len(chunk)]


@torch.inference_mode()
def populate_chunk(
    states: States,
    view: View,
    rows: Array,
    words: Array,
    parts: Sequence[StateKind],
    model: PreTrainedModel,
    autocast: bool,
) -> None:
    """Let the teacher read some texts, and store the result in one shard.

    Args:
        states: where to store it.
        view: the teacher's view of the texts.
        rows: [chunk], which of them.
        words: [texts], how many words of each are to be stored.
        parts: which states.
        model: the teacher.
        autocast: compute in bf16.

    Raises:
        InputError: the shard cannot be written, or the model's attention cannot be read.
    """
    request = request_of(parts)
    gathered: dict[StateKind, list[Array]] = {part: [] for part in parts}
    order: list[Array] = []
    for mine, side in teacher_batches(view, rows, words, TOKENS_A_STEP):
        side = side.to(model.device)
        mask = side.words.spans[..., 1] > side.words.spans[..., 0]  # [batch, words]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            _, (word_states,) = forward_with_taps(model, side, [(side.words, request)])
        order.append(mine)
        for part in parts:
            gathered[part].append(_ragged(part, word_states, mask, side.attention_mask))
    read = np.concatenate(order)
    path = write_shard(
        states.storage.folder,
        states.teacher,
        view.keys[read],
        words[read],
        view.lengths[read],
        {part: np.concatenate(arrays) for part, arrays in gathered.items()},
    )
    states.storage.keep(path)


def _ragged(part: StateKind, word_states: WordStates, mask: Tensor, tokens: Tensor) -> Array:
    """Drop the padding: [sum of sizes, width], the texts one after the other."""
    if part.kind == "hidden":
        return word_states.hidden[part.layer][mask].half().cpu().numpy()
    # [batch, words, words or length, heads]
    rows = word_states.attention[part.layer].movedim(1, -1)
    columns = mask if part.kind == "words" else tokens.bool()
    return rows[mask[:, :, None] & columns[:, None, :]].half().cpu().numpy()


def populate(
    states: States,
    view: View,
    words: Array,
    parts: Sequence[StateKind],
    load: Callable[[], PreTrainedModel],
    autocast: bool,
) -> bool:
    """Store what is missing, in this process; return whether anything was.

    Processes that want the same at once wait for the first of them.
    """
    if not len(states.missing(view.keys, words, parts)):
        return False
    states.storage.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Lease(Location(states.storage.folder), ".filling.lock", wait=math.inf):
        states.reopen()
        rows = states.missing(view.keys, words, parts)
        if not len(rows):
            return False
        for damaged in states.refused:
            states.storage.discard(damaged.path)
        model = load()
        for chunk in chunks(view, rows, words, parts, model.config):
            populate_chunk(states, view, chunk, words, parts, model, autocast)
    states.reopen()
    return True
