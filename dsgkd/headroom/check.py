"""The headroom check of a run's notes: notes are read, states computed, and everything measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule
from dsgkd.data.identity import group_numbers
from dsgkd.data.ragged import Array
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.features import (
    Material,
    StateName,
    bag_of_words,
    character_ngrams,
    words_of,
)
from dsgkd.headroom.measurement import Measured, measure
from dsgkd.headroom.states import TeacherNotes, student_states
from dsgkd.headroom.verdict import Verdict, verdicts
from dsgkd.models.hub import depth, load_config
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.training.config import RunConfig
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.opening import open_notes, open_table, transfer_sources

OPEN = ("train",)
"""Neither validation nor test notes are read."""


@dataclass(frozen=True)
class Headroom:
    """What was measured, and what follows."""

    measured: Measured
    verdicts: tuple[Verdict, ...]
    """Of each teacher, the most promising first."""
    student_depth: int

    @property
    def mapping(self) -> str:
        """The suggested layer mapping, of the most promising teacher."""
        return self.verdicts[0].mapping(self.student_depth)


def check_headroom(
    run: RunConfig,
    teachers: Sequence[str],
    config: HeadroomConfig,
    store: StoreConfig,
    cache: Path,
    notify: Callable[[str], None] = lambda line: None,
) -> Headroom:
    """Measure how much the teachers' states tell of the labels beyond the text.

    Args:
        run: notes, student and word rule; its distillation says how many words are transferred.
        teachers: their names, one each.
        config: how thoroughly.
        store: where teachers are stored.
        cache: folder for tokenised texts, small pre-trained models and stored teachers.
        notify: takes lines for people.

    Raises:
        InputError: the notes or a model cannot be used, or there are too few notes.
    """
    run = replace(run, splits=OPEN, links=())
    notes = open_table(run.data, run.world, cache, OPEN)
    groups = np.asarray(group_numbers(notes.table["group_id"].to_pylist()), np.int64)
    chosen = some_notes(groups, config.most_notes, config.seed)
    texts = [notes.table["text"][row].as_py() for row in chosen.tolist()]
    counts, types = bag_of_words(texts, run.words)
    states: dict[StateName, Array] = {}
    for at, (teacher, name) in enumerate(zip(teachers, public_names(teachers))):
        own = replace(run, distillation=replace(run.distillation, teacher=teacher))
        encoded = open_notes(own, cache).take(chosen)
        _check_words(encoded, teacher)
        if at == 0:
            states |= student_states(run, encoded, cache)
        notify(f"headroom: {teacher} reads {len(chosen):,} training notes")
        states |= TeacherNotes(own, encoded, name).states(config, store, cache)
    material = Material(
        notes.table["label"].to_numpy()[chosen],
        groups[chosen],
        counts,
        character_ngrams(texts),
        states,
        _covered(run, counts.sum(axis=0), types, cache),
    )
    notify(f"headroom: {len(material.states) + 2} kinds of features, {config.folds} folds")
    measured = measure(material, config)
    deep = depth(load_config(model_reference(run.student.model, cache, run.world)))
    return Headroom(measured, verdicts(measured, config.worth), deep)


def public_names(models: Sequence[str]) -> list[str]:
    """Return the models' names without where they lie; those that are the same are numbered."""
    found: list[str] = []
    for model in models:
        name = short = PurePath(model).name.removeprefix(CORPUS_PREFIX)
        while name in found:
            name = f"{short}-{1 + sum(one.startswith(short) for one in found)}"
        found.append(name)
    return found


def some_notes(groups: Array, most: int, seed: int) -> Array:
    """Return the rows of at most so many notes, of randomly drawn groups: ascending.

    The last group that is drawn may be one too many, and is left out.
    """
    if len(groups) <= most:
        return np.arange(len(groups))
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    drawn = order[np.cumsum(sizes[order]) <= most]
    return np.flatnonzero(np.isin(groups, drawn))


def _check_words(texts: EncodedTexts, teacher: str) -> None:
    if not texts.alignments[0].words.lengths.any():
        what = f"no training note has a word that {teacher} and the student know"
        raise InputError("headroom", what, "check --words.script, or the order of the models")


def _covered(run: RunConfig, counts: Array, types: Sequence[str], cache: Path) -> float:
    """Return which share of the types that stand once only is in the unlabelled texts."""
    sources = transfer_sources(run, cache)
    once = {kind for kind, count in zip(types, counts.tolist()) if count == 1}
    if not sources or not once:
        return float("nan")
    return len(once & _types(sources, run.words)) / len(once)


def _types(sources: dict, rule: WordRule) -> set[str]:
    tables = [source.table["text"].to_pylist() for source in sources.values()]
    return {word for texts in tables for text in texts for word in words_of(text, rule)}
