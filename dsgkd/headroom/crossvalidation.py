"""Out-of-fold predictions of regularised logistic regressions, each alone and stacked on the text.

Every probe is a logistic regression on one block of features. Of each training fold, an inner
cross-validation chooses the penalty and gives the logits on which the stack is fitted (stacked
generalisation: Wolpert 1992; Breiman 1996), so nothing that is measured on a fold was fitted or
chosen on it. Classes are told one from the rest, as the measures of the project are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfTransformer

from dsgkd.data.ragged import Array
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.logistic import Rotated, fit, fit_stack, logits, rotated

WORDS, TEXT, SAID = "words", "text", "said"
"""Bag of the words to transfer; character n-grams of the whole text; both stacked."""
ALONE = "alone"
INNER_FOLDS = 3


@dataclass(frozen=True, eq=False)
class Block:
    """One kind of features of every note."""

    values: Any
    """[notes, features]: counts in a sparse matrix, or dense with rows of NaN where a note has no
    word."""
    scale: Literal["standard", "tfidf", "presence"] = "standard"


class Fold(NamedTuple):
    """Positions of the notes that are learnt from, and of those that are predicted."""

    train: Array
    test: Array


class Probe(NamedTuple):
    """The predictions of one block in one fold."""

    inner: Array
    """Out-of-fold logits of the training notes: [train, problems]."""
    outer: Array
    """Logits of the test notes: [test, problems]."""
    loss: float
    """Mean cross-entropy of `inner`: what penalties and layers are chosen by."""


def one_vs_rest(labels: Array, least: int) -> Array:
    """Return the binary problems of some labels: [notes, problems] bool.

    Two classes are one problem; of more, each is one against the rest. Classes with fewer than
    `least` notes, in or outside of them, are left out.
    """
    classes = np.unique(labels)
    truth = labels[:, None] == (classes[1:] if len(classes) == 2 else classes)
    counts = truth.sum(0)
    return truth[:, (counts >= least) & (len(labels) - counts >= least)]


def cut(labels: Array, groups: Array, count: int, random: np.random.Generator) -> list[Fold]:
    """Cut notes into folds of about equal size and label shares; a group is in one fold only.

    Groups are dealt like cards, one class after the other, the largest of a class first.

    Args:
        labels: [notes].
        groups: [notes] int64, number of each note's patient.
        count: of folds.
        random: decides the order of equal groups.
    """
    _, first, number, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((random.random(len(first)), -sizes, labels[first]))
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first)) % count
    fold = place[number]
    return [Fold(np.flatnonzero(fold != at), np.flatnonzero(fold == at)) for at in range(count)]


def plan(labels: Array, groups: Array, config: HeadroomConfig) -> list[Fold]:
    """Return the folds of every repeat, one repeat after the other."""
    found = []
    for repeat in range(config.repeats):
        random = np.random.default_rng(np.random.SeedSequence([config.seed, repeat]))
        found += cut(labels, groups, config.folds, random)
    return found


def subsample(labels: Array, fold: Fold, count: int, seed: Sequence[int]) -> Fold:
    """Return the fold with `count` of its training notes, with their label shares."""
    random = np.random.default_rng(np.random.SeedSequence(seed))
    order = random.permutation(fold.train)
    order = order[np.argsort(labels[order], kind="stable")]
    # Evenly spaced over the notes sorted by label, from a random start.
    places = (np.arange(count) + random.random()) * len(order) / count
    return Fold(np.sort(order[places.astype(np.int64)]), fold.test)


def fold_scores(
    blocks: Mapping[str, Block],
    choices: Mapping[str, Sequence[str]],
    problems: Array,
    labels: Array,
    groups: Array,
    fold: Fold,
    config: HeadroomConfig,
    probes: bool = True,
) -> dict[tuple[str, str], Array]:
    """Predict the test notes of a fold from every block, alone and stacked.

    Args:
        blocks: by name; `WORDS` and `TEXT` among them.
        choices: name -> blocks (a teacher's layers), of which each fold chooses by the inner loss.
        problems: [notes, problems] bool.
        labels: [notes], by which inner folds are cut.
        groups: [notes], as in `cut`.
        fold: which notes.
        config: penalties and components.
        probes: also return what is no choice.

    Returns:
        (block or choice, `ALONE`, `WORDS` or `SAID`) -> [test, problems] logits: alone, stacked on
        the words, and stacked on text and words; (`SAID`, `ALONE`) is text and words without it.
    """
    random = np.random.default_rng(np.random.SeedSequence([config.seed, len(fold.train)]))
    count = min(INNER_FOLDS, len(np.unique(groups[fold.train])))
    inner = cut(labels[fold.train], groups[fold.train], count, random)
    truth = problems[fold.train]
    found = {
        name: _probe(_prepared(block, fold, config), truth, inner, np.asarray(config.penalties))
        for name, block in blocks.items()
    }
    words, text = found[WORDS], found[TEXT]
    scores = {(SAID, ALONE): _stacked([words, text], truth)}
    stacks = {WORDS: [words], SAID: [words, text]}
    chosen = {name: min(names, key=lambda n: found[n].loss) for name, names in choices.items()}
    named = {name: found[block] for name, block in chosen.items()}
    for name, probe in (found | named if probes else {WORDS: words, TEXT: text} | named).items():
        scores[name, ALONE] = probe.outer
        if name not in (WORDS, TEXT):
            for base, under in stacks.items():
                scores[name, base] = _stacked([*under, probe], truth)
    return scores


def familiarity(words: csr_array, fold: Fold) -> Array:
    """Return in how many training notes the least known word of each test note stands: [test].

    -1 where a note has no word.
    """
    seen = np.asarray((words[fold.train] > 0).sum(axis=0)).ravel()
    test = words[fold.test]
    lengths = np.diff(test.indptr)
    least = np.full(len(fold.test), -1, np.int64)
    if len(test.indices):
        starts = test.indptr[:-1][lengths > 0]
        least[lengths > 0] = np.minimum.reduceat(seen[test.indices], starts)
    return least


def auroc(truth: Array, scores: Array) -> Array:
    """Return the area under the ROC curve of each arm, the mean over problems: [arms].

    The share of pairs in which the positive note scores higher, ties counting half (Mann and
    Whitney), of each problem that has both kinds of notes; NaN where none has.

    Args:
        truth: [notes, problems] bool.
        scores: [notes, problems, arms].
    """
    positives = truth.sum(0)
    defined = (positives > 0) & (positives < len(truth))
    if not defined.any():
        return np.full(scores.shape[2], np.nan)
    truth, positives = truth[:, defined, None], positives[defined, None]
    ranks = rankdata(scores[:, defined], axis=0)  # midranks
    above = (ranks * truth).sum(0) - positives * (positives + 1) / 2
    areas: Array = (above / (positives * (len(truth) - positives))).mean(0)
    return areas


def _prepared(block: Block, fold: Fold, config: HeadroomConfig) -> Rotated:
    """Return the features of training and test notes, scaled by what the training notes are."""
    train, test = block.values[fold.train], block.values[fold.test]
    if block.scale == "tfidf":
        weighting = TfidfTransformer(sublinear_tf=True).fit(train)
        return rotated(weighting.transform(train), weighting.transform(test))
    if block.scale == "presence":
        return rotated((train > 0).astype(np.float64), (test > 0).astype(np.float64))
    known = train[~np.isnan(train).any(axis=1)]
    if not len(known):
        return Rotated(np.zeros((len(train), 1)), np.zeros((len(test), 1)))
    mean, deviation = known.mean(0), known.std(0)
    deviation[deviation < 1e-9] = 1.0
    train, test = (np.nan_to_num((side - mean) / deviation) for side in (train, test))
    return rotated(train, test, config.components)


def _probe(features: Rotated, truth: Array, inner: Sequence[Fold], penalties: Array) -> Probe:
    subsets = np.ones((len(inner) + 1, len(truth)), bool)  # the last one: all
    for at, part in enumerate(inner):
        subsets[at, part.test] = False
    weights = fit(features.train, truth, subsets, penalties)
    held_out = np.zeros((len(truth), *weights.shape[2:]))  # [train, penalties, problems]
    for at, part in enumerate(inner):
        held_out[part.test] = logits(features.train[part.test], weights[:, at])
    signed = np.where(truth[:, None], -held_out, held_out)
    losses = np.logaddexp(0, signed).mean(0)  # [penalties, problems]
    best, each = losses.argmin(0), np.arange(truth.shape[1])
    return Probe(
        held_out[:, best, each],
        logits(features.test, weights[:, -1, best, each]),
        float(losses.min(0).mean()),
    )


def _stacked(probes: Sequence[Probe], truth: Array) -> Array:
    """Return the logits of a logistic regression on those of several probes: [test, problems]."""
    columns = []
    for at in range(truth.shape[1]):
        inner = np.stack([probe.inner[:, at] for probe in probes], 1)
        outer = np.stack([probe.outer[:, at] for probe in probes], 1)
        scale = np.maximum(inner.std(0), 1e-9)
        columns.append(logits(outer / scale, fit_stack(inner / scale, truth[:, at])))
    return np.stack(columns, 1)
