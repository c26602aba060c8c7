"""Prototypes: a teacher's mean state of each word over sentences of its own language.

A note in the student's language is noise to a teacher that has never read any. What it knows of a
word it says where it meets the word among words that it knows: in sentences of its own corpus, or,
for a word that the corpus lacks, in carrier sentences.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dsgkd.alignment.batch import Pair, teacher_batches
from dsgkd.alignment.view import View
from dsgkd.alignment.vocabulary import Vocabulary
from dsgkd.data.ragged import Array, Ragged
from dsgkd.distillation.store.populate import TOKENS_A_STEP
from dsgkd.distillation.teachers.source import TeacherSource, live_model
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps
from dsgkd.storage.stored_table import stored_table

_FORMAT = 1
"""Version of what `prototypes` returns; part of the name under which it is stored."""


@dataclass(frozen=True, eq=False)
class PrototypeTeacher:
    """Gives each word its prototype, whatever text it stands in."""

    names: Tensor
    """Of the words (`View.word_names`), ascending: [types] int64."""
    hidden: dict[int, Tensor]
    """Layer -> prototypes, [types, width] float32."""

    def word_states(self, pair: Pair) -> WordStates:
        """Look up the words of the batch.

        Raises:
            KeyError: there is no prototype of a word.
        """
        if pair.names is None:
            raise ValueError("the batch was collated without the names of its words")
        at = torch.searchsorted(self.names, pair.names).clamp(max=len(self.names) - 1)
        if not ((self.names[at] == pair.names) | ~pair.mask).all():
            raise KeyError("words without a prototype")
        return WordStates({layer: table[at] for layer, table in self.hidden.items()}, {})


def prototypes(
    source: TeacherSource,
    layers: Sequence[int],
    words: Vocabulary,
    corpus: View | None,
    carriers: View,
    most: int,
    cache: Path,
) -> PrototypeTeacher:
    """Return a teacher of prototypes, computed once and stored below `cache`.

    The prototype of a word is the mean of its states over the first `most` of its occurrences in
    the corpus, in a fixed random order of its texts, or, where it has none there, in the carrier
    sentences. The file `cache/prototypes/HASH.arrow` is named by all that was read.

    Args:
        source: the teacher.
        layers: whose hidden states are wanted.
        words: of which there are to be prototypes.
        corpus: texts of the teacher's language as it reads them, or None.
        carriers: as `alignment.vocabulary.carried` makes them of `words`.
        most: occurrences of a word that are read at most.
        cache: the folder.

    Raises:
        InputError: the model cannot be used, or the file cannot be written.
    """
    views = [view for view in (corpus, carriers) if view is not None]
    read = View.joined(views)
    chosen = _chosen(read.word_names, words.names, len(corpus or ()), most)
    keys = read.keys[np.unique(chosen.texts)]
    digest = hashlib.sha256(keys.tobytes() + words.names.tobytes())
    digest.update(json.dumps([_FORMAT, source.key, sorted(layers), most]).encode())

    def build() -> pa.Table:
        means = _means(source, sorted(layers), read, chosen, len(words.names))
        lists = {f"layer {k}": pa.array(list(mean), pa.list_(pa.float32())) for k, mean in means}
        return pa.table(lists)

    table = stored_table(Path(cache) / "prototypes" / f"{digest.hexdigest()}.arrow", build)
    hidden = {}
    for layer in layers:
        flat = table[f"layer {layer}"].combine_chunks().flatten().to_numpy()
        stored = np.array(flat, np.float32).reshape(len(words.names), -1)
        hidden[layer] = torch.from_numpy(stored).to(source.device)
    return PrototypeTeacher(torch.from_numpy(words.names).to(source.device), hidden)


class _Chosen(NamedTuple):
    """Occurrences of words."""

    texts: Array
    """[occurrences] int64."""
    places: Array
    """Of the word among those that the model has in the text: [occurrences] int64."""
    kinds: Array
    """Of the word among the wanted ones: [occurrences] int64."""


def _chosen(found: Ragged, wanted: Array, corpus: int, most: int) -> _Chosen:
    """Choose which occurrences of the wanted words are read.

    Args:
        found: names of the words of each text.
        wanted: ascending.
        corpus: number of texts before the carrier sentences.
        most: of each word.
    """
    names, texts, places = found.flat(), found.rows(), found.positions()
    kinds = np.minimum(np.searchsorted(wanted, names), len(wanted) - 1)
    is_wanted = wanted[kinds] == names
    texts, places, kinds = texts[is_wanted], places[is_wanted], kinds[is_wanted]
    in_corpus = np.bincount(kinds[texts < corpus], minlength=len(wanted)) > 0
    kept = (texts < corpus) | ~in_corpus[kinds]
    texts, places, kinds = texts[kept], places[kept], kinds[kept]
    shuffled = np.random.default_rng(0).permutation(len(found))[texts]
    order = np.lexsort((places, shuffled, kinds))
    ranks = Ragged.of_lengths(order, np.bincount(kinds, minlength=len(wanted))).positions()
    first = order[ranks < most]
    return _Chosen(texts[first], places[first], kinds[first])


@torch.inference_mode()
def _means(
    source: TeacherSource, layers: Sequence[int], read: View, chosen: _Chosen, types: int
) -> list[tuple[int, Array]]:
    """Let the teacher read, and return the mean states of each layer, [types, width]."""
    model, request = live_model(source), TapRequest(tuple(layers))
    counts = torch.bincount(torch.from_numpy(chosen.kinds), minlength=types).clamp(min=1)
    sums = dict.fromkeys(layers, torch.zeros(types, source.config.hidden_size))
    sums = {layer: zeros.clone() for layer, zeros in sums.items()}
    order = np.argsort(chosen.texts, kind="stable")
    texts, places, kinds = (column[order] for column in chosen)
    for rows, side in teacher_batches(read, np.unique(texts), read.words.lengths, TOKENS_A_STEP):
        side = side.to(source.device)
        with torch.autocast(source.device.type, torch.bfloat16, enabled=source.autocast):
            _, (states,) = forward_with_taps(model, side, [(side.words, request)])
        begins, ends = (np.searchsorted(texts, rows, where) for where in ("left", "right"))
        mine = Ragged(np.arange(len(texts)), begins, ends - begins)
        within, at = mine.rows(), mine.flat()
        for layer in layers:
            found = states.hidden[layer][within, places[at]].cpu()
            sums[layer].index_add_(0, torch.from_numpy(kinds[at]), found)
    return [(layer, (sums[layer] / counts[:, None]).numpy()) for layer in layers]
