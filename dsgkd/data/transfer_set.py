"""The transfer set: which texts a run is trained on, from which sources, how much of each.

A sampler draws the rows of every step. What it draws is a pure function of its state and the
step, so a run can be resumed at any step and shared among any number of workers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from dsgkd.configuration import Column, Share, Text, config
from dsgkd.data.ragged import Array, Ragged
from dsgkd.errors import InputError
from dsgkd.plugins import find

LABELLED, UNLABELLED, GLOSSARY = "labelled", "unlabelled", "glossary"
"""The names of the sources of a study on notes."""
SYNTHETIC = "synthetic"
"""In place of a path: the texts of the synthetic world."""

_POOL_BATCHES = 50
"""Batches whose texts are sorted by length together: little padding, order still random."""


@config
class TransferConfig:
    """Texts besides the labelled notes, and how much of each source a batch holds."""

    unlabelled: tuple[Text, ...] = ()
    """Files of notes without labels, which join the distillation, not the task; `synthetic`: those
    of the synthetic world."""
    unlabelled_text: Column | None = None
    """Column of these notes; None: found by name."""
    glossary: Text = ""
    """A file of terms, one a line, each read as a text of its own; `synthetic`: those of the
    synthetic world; empty: none."""
    mix: Text = ""
    """Weights of the sources in a batch, such as labelled=1,unlabelled=2; empty: all weigh 1."""
    sampler: Text = "fixed"
    """`fixed` proportions; `terms`: the same, but texts of the further sources are drawn such that
    rare terms come as often as frequent ones; or `package.module:Class` of a mix that changes on
    the way."""
    term_balance: Share = 1.0
    """With `terms`: 1 draws every term equally often, 0 as often as it occurs."""

    def __post_init__(self) -> None:
        if self.sampler == "terms" and len(self.sources) == 1:
            what = "terms draws from further sources, and there is none"
            raise InputError("sampler", what, "give unlabelled notes or a glossary")
        weights = parse_mix(self.mix)
        unknown = set(weights) - set(self.sources)
        if unknown:
            what = f"no source '{sorted(unknown)[0]}' is given"
            raise InputError("mix", what, f"name sources of {', '.join(self.sources)}")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, the labelled notes first."""
        given = {LABELLED: True, UNLABELLED: self.unlabelled, GLOSSARY: self.glossary}
        return tuple(name for name, there in given.items() if there)


def parse_mix(text: str) -> dict[str, float]:
    """Read weights such as `labelled=1,unlabelled=2`.

    Raises:
        InputError: a weight is no positive number, or a source is named twice.
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if not 0 < weight < float("inf") or not name or name in weights:
            raise InputError("mix", f"'{part}' cannot be read", "write labelled=1,unlabelled=2")
        weights[name] = weight
    return weights


@dataclass(frozen=True)
class Feedback:
    """What a run tells its sampler after each evaluation."""

    step: int
    """Optimisation steps so far."""
    losses: Mapping[str, float]
    """Source -> mean task loss on its held-out texts, where it has any."""


class Sampler(Protocol):
    """Draws the texts of every step."""

    steps: int
    """Steps of a pass over the transfer set."""

    def draw(self, step: int) -> Array:
        """Return the rows of a step's batch, over all workers: [batch] int64.

        Args:
            step: counted from 0 over the whole run; not before the pass of the last state.
        """
        ...

    def update(self, feedback: Feedback) -> None:
        """Take note of what a run has learnt."""
        ...

    def state(self) -> dict[str, Any]:
        """Return, as JSON values, what decides everything that is still to be drawn."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on as the sampler did that returned the state."""
        ...


class FixedMix:
    """Sources in fixed proportions.

    A pass goes once through the first source; from each other source it takes as many texts as the
    weights say, going on where the pass before has stopped, through one seeded permutation after
    another. Every batch of a pass holds its share of each source. A subclass that sets `weights`
    in `update` is a dynamic mix: they count from the next pass on.

    Args:
        lengths: [texts], by which texts are bucketed.
        sources: [texts], position of each text's source in `names`.
        names: of the sources; the one with the first text decides how long a pass is.
        weights: source -> weight; 1 where none is given.
        batch_size: texts in a batch, over all workers.
        seed: decides the order.
    """

    needs_words: ClassVar[bool] = False
    """Whether it is built with the words of the texts as well."""

    def __init__(
        self,
        lengths: Array,
        sources: Array,
        names: Sequence[str],
        weights: Mapping[str, float],
        batch_size: int,
        seed: int,
    ) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._rows = {name: np.flatnonzero(sources == at) for at, name in enumerate(names)}
        self._rows = {name: rows for name, rows in self._rows.items() if len(rows)}
        self._first = next(iter(self._rows), "")
        self.weights = {name: float(weights.get(name, 1.0)) for name in self._rows}
        self._in_force = dict(self.weights)  # in the pass of the state
        self._pass, self._begins = 0, 0
        self._taken = dict.fromkeys(self._rows, 0.0)
        self._batches: list[Array] | None = None

    @property
    def steps(self) -> int:
        """Steps of the pass that the state is in; the last batch may be smaller."""
        return -(-sum(self._counts().values()) // self._batch_size)

    def draw(self, step: int) -> Array:
        """Return the rows of a step's batch: [batch] int64."""
        if step < self._begins:
            raise ValueError(f"step {step} lies before the pass of the sampler's state")
        while step >= self._begins + self.steps:
            self._begins += self.steps
            self._taken = {name: now + self._share(name) for name, now in self._taken.items()}
            self._in_force = dict(self.weights)
            self._pass += 1
            self._batches = None
        if self._batches is None:
            self._batches = self._plan()
        return self._batches[step - self._begins]

    def update(self, feedback: Feedback) -> None:
        """Do nothing: the proportions are fixed."""

    def state(self) -> dict[str, Any]:
        """Return the weights, and where each source stands at the beginning of the pass."""
        return {
            "pass": self._pass,
            "begins": self._begins,
            "taken": dict(self._taken),
            "weights": dict(self._in_force),
            "next": dict(self.weights),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with that state."""
        self._pass, self._begins = state["pass"], state["begins"]
        self._taken, self._in_force = dict(state["taken"]), dict(state["weights"])
        self.weights = dict(state["next"])
        self._batches = None

    def _share(self, name: str) -> float:
        """Return how many texts of a source a pass takes, as a fraction."""
        first = self._first
        return len(self._rows[first]) * self._in_force[name] / self._in_force[first]

    def _counts(self) -> dict[str, int]:
        return {
            name: int(now + self._share(name) + 1e-9) - int(now + 1e-9)
            for name, now in self._taken.items()
        }

    def _plan(self) -> list[Array]:
        """Return the batches of the pass."""
        random = np.random.default_rng(np.random.SeedSequence((self._seed, self._pass)))
        parts = []
        for at, (name, count) in enumerate(self._counts().items()):
            rows = self._rows[name]
            if name == self._first:
                parts.append(rows[random.permutation(len(rows))])
            else:
                begin = int(self._taken[name] + 1e-9)
                parts.append(self._stream(at, rows, begin, count))
        batches = _bucketed(parts, self._lengths, self._batch_size)
        return [batches[number] for number in random.permutation(len(batches))]

    def _stream(self, source: int, rows: Array, begin: int, count: int) -> Array:
        """Return the texts from `begin` on of one round through a source after another."""
        passes = range(begin // len(rows), -(-(begin + count) // len(rows)))
        orders = [
            self._round(
                rows, np.random.default_rng(np.random.SeedSequence((self._seed, at, source)))
            )
            for at in passes
        ]
        skipped = begin - passes.start * len(rows)
        drawn = np.concatenate([np.zeros(0, np.int64), *orders])
        return rows[drawn[skipped : skipped + count]]

    def _round(self, rows: Array, random: np.random.Generator) -> Array:
        """Return as many positions in `rows` as there are, in a random order: here each once."""
        return random.permutation(len(rows))


class TermMix(FixedMix):
    """Sources in fixed proportions, texts drawn by their terms (`term_weights`).

    The first source, whose labels a task learns, is still gone through once in a pass. Of every
    other one a round of as many texts as it has is a systematic sample in random order: each text
    comes as often as its weight says, rounded up or down.

    Args:
        lengths: as the others, of `FixedMix`.
        words: names of the words in each text.
        balance: as in `term_weights`.
    """

    needs_words = True

    def __init__(
        self,
        lengths: Array,
        sources: Array,
        names: Sequence[str],
        weights: Mapping[str, float],
        batch_size: int,
        seed: int,
        words: Ragged,
        balance: float = 1.0,
    ) -> None:
        super().__init__(lengths, sources, names, weights, batch_size, seed)
        self._weights = np.zeros(len(lengths))
        for rows in self._rows.values():
            self._weights[rows] = term_weights(words.take(rows), balance)

    def _round(self, rows: Array, random: np.random.Generator) -> Array:
        """Return as many positions in `rows` as there are, in a random order."""
        order = random.permutation(len(rows))
        ends = np.cumsum(self._weights[rows[order]])
        places = (np.arange(len(rows)) + random.random()) * (ends[-1] / len(rows))
        drawn = order[np.minimum(np.searchsorted(ends, places, side="right"), len(rows) - 1)]
        return random.permutation(drawn)


def term_weights(words: Ragged, balance: float = 1.0) -> Array:
    """Return how often each text of a source is to be drawn, relative to the others: [texts].

    w = sum over the different words of a text of n(word) ** -balance, n the number of texts with
    the word. With balance 1 a draw is one of the words with equal chances, then one of the texts
    with it; with 0 words are drawn as often as they occur. Where no text has a word, all weigh 1.

    Args:
        words: names of the words in each text.
        balance: between 0 and 1.
    """
    if not words.lengths.any():
        return np.ones(len(words))
    kinds = np.unique(words.flat(), return_inverse=True)[1]
    pairs = np.unique(np.stack([words.rows(), kinds], axis=1), axis=0)  # each word of a text once
    counts = np.bincount(pairs[:, 1]).astype(float)
    return np.bincount(pairs[:, 0], counts[pairs[:, 1]] ** -balance, len(words))


def _bucketed(parts: Sequence[Array], lengths: Array, batch_size: int) -> list[Array]:
    """Cut shuffled rows of several sources into batches of similar length, each with its share."""
    count = -(-sum(map(len, parts)) // batch_size)
    # Each source is spread evenly over the pass; batches are cut from what comes out together.
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
    owners = np.repeat(np.arange(len(parts)), list(map(len, parts)))
    owners = owners[np.argsort(places, kind="stable")]
    ends = np.arange(count + 1) * batch_size
    cuts = [np.searchsorted(np.flatnonzero(owners == at), ends) for at in range(len(parts))]
    batches: list[list[Array]] = [[] for _ in range(count)]
    for part, cut in zip(parts, cuts, strict=True):
        for first in range(0, count, _POOL_BATCHES):
            last = min(first + _POOL_BATCHES, count)
            pool = part[cut[first] : cut[last]]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            for at in range(first, last):
                batches[at].append(pool[cut[at] - cut[first] : cut[at + 1] - cut[first]])
    return [np.concatenate(batch) for batch in batches]


SAMPLERS = {"fixed": FixedMix, "terms": TermMix}


def new_sampler(
    config: TransferConfig,
    lengths: Array,
    sources: Array,
    names: Sequence[str],
    batch_size: int,
    seed: int,
    words: Callable[[], Ragged] | None = None,
) -> Sampler:
    """Build the sampler that a configuration names.

    Args:
        config: names the sampler, and the weights of the sources.
        lengths: as `FixedMix`.
        sources: as `FixedMix`.
        names: as `FixedMix`.
        batch_size: as `FixedMix`.
        seed: as `FixedMix`.
        words: gives the names of the words in each text, to a sampler that `needs_words`.

    Raises:
        InputError: there is no such sampler.
    """
    make = find("sampler", config.sampler, SAMPLERS)
    given = {}
    if getattr(make, "needs_words", False) and words is not None:
        given = {"words": words(), "balance": config.term_balance}
    sampler: Sampler = make(
        lengths, sources, names, parse_mix(config.mix), batch_size, seed, **given
    )
    return sampler
