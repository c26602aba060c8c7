"""The measurement: each kind of features alone and beyond the text, by layer, labels and words."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dsgkd.data.ragged import Array
from dsgkd.errors import InputError
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.crossvalidation import (
    ALONE,
    SAID,
    TEXT,
    WORDS,
    Fold,
    auroc,
    familiarity,
    fold_scores,
    one_vs_rest,
    plan,
    subsample,
)
from dsgkd.headroom.features import (
    RANDOM,
    SHUFFLED,
    STUDENT_TOKENS,
    STUDENT_WORDS,
    TEACHER,
    Material,
    StateName,
)
from dsgkd.headroom.intervals import UNDEFINED, Interval, beyond, corrected

Arm = tuple[str, str]
"""A block or choice, and what it is stacked on."""
Scores = list[dict[Arm, Array]]
"""Of every fold."""

ALL, FAMILIAR, RARE, UNSEEN = "all", "familiar", "rare", "unseen"
KNOWN: Mapping[str, Callable[[Array], Array]] = {
    FAMILIAR: lambda least: least >= 3,
    RARE: lambda least: (least == 1) | (least == 2),
    UNSEEN: lambda least: least == 0,
}
"""Notes by the number of training notes in which their least known word stands."""


@dataclass(frozen=True)
class Row:
    """How well one kind of features predicts the label, and what it adds to the text."""

    features: str
    """`words`, `text`, `said` (both), `teacher`, `random`, `shuffled`, `student tokens` or
    `student words`."""
    model: str = ""
    layer: int | None = None
    """None: none, or of several the one that each training fold has chosen."""
    labels: int = 0
    """Training notes of a fold, on average."""
    words: str = ALL
    """Which notes are predicted: `all`, or by their least known word `familiar` (in 3 training
    notes or more), `rare` (1 or 2) or `unseen`."""
    notes: int = 0
    """How many are predicted, in one repeat."""
    auroc: Interval = UNDEFINED
    """Of these features alone."""
    over_words: Interval = UNDEFINED
    """What they add to the bag of words."""
    gain: Interval = UNDEFINED
    """What they add to text and words together."""
    excess: Interval = UNDEFINED
    """The gain less that of random weights."""


@dataclass(frozen=True)
class Measured:
    """Everything that was measured."""

    rows: tuple[Row, ...]
    notes: int
    patients: int
    problems: int
    """1 for two classes; else the number of classes that are told from the rest."""
    folds: int
    repeats: int
    confidence: float
    """Of every interval."""
    covered: float = float("nan")
    """As `Material.covered`."""

    def find(self, features: str, model: str = "", layer: int | None = None) -> Row:
        """Return the row of all labels and all notes.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.features, row.model, row.layer, row.words) == (features, model, layer, ALL):
                return row
        raise KeyError((features, model, layer))

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers."""
        return tuple(dict.fromkeys(row.model for row in self.rows if row.features == TEACHER))

    def layers(self, model: str) -> tuple[Row, ...]:
        """Return the rows of a teacher's layers."""
        return tuple(
            row
            for row in self.rows
            if (row.features, row.model, row.words) == (TEACHER, model, ALL)
            and row.layer is not None
            and row.labels == self.find(TEACHER, model).labels
        )


def measure(material: Material, config: HeadroomConfig) -> Measured:
    """Measure what each kind of features tells of the label.

    A teacher's layer is chosen inside each training fold, as the penalty is, for the teacher as for
    random weights, so the gain of the best of several layers is not flattered by the choice. Rows
    of single layers, and the learning curve, which takes the layer with the largest gain, only
    describe.

    Raises:
        InputError: there are too few notes of a class.
    """
    return _Measurement(material, config).run()


class _Measurement:
    def __init__(self, material: Material, config: HeadroomConfig) -> None:
        self._material, self._config = material, config
        self._problems = one_vs_rest(material.labels, config.least_notes)
        patients = len(np.unique(material.groups))
        if not self._problems.shape[1] or patients < 2 * config.folds:
            counts = ", ".join(map(str, np.unique(material.labels, return_counts=True)[1]))
            what = f"{counts} training notes in the classes, of {patients} patients, tell nothing"
            raise InputError("headroom", what, f"label {config.least_notes} or more of each class")
        self._blocks = material.blocks()
        self._folds = plan(material.labels, material.groups, config)
        kept: dict[tuple[str, str], dict[int, list[StateName]]] = defaultdict(dict)
        for name in material.states:
            kept[name.model, name.features].setdefault(name.draw, []).append(name)
        self._states = kept
        self._teachers = [model for model, features in kept if features == TEACHER]
        # Several teachers are several chances to find something.
        self._confidence = 1 - (1 - config.confidence) / max(1, len(self._teachers))

    def run(self) -> Measured:
        """Return all rows."""
        material, config = self._material, self._config
        choices = {
            _choice(model, features, draw): [str(name) for name in names]
            for (model, features), draws in self._states.items()
            for draw, names in draws.items()
        }
        scores = [self._scores(self._blocks, choices, fold) for fold in self._folds]
        least = [familiarity(material.words, fold) for fold in self._folds]
        everyone = [np.ones(len(fold.test), bool) for fold in self._folds]
        labels = round(float(np.mean([len(fold.train) for fold in self._folds])))
        rows = self._rows(self._values(scores, everyone), labels, by_layer=True)
        best = {model: _best_layer(rows, model) for model in self._teachers}
        for words, belong in KNOWN.items():
            chosen = [belong(one) for one in least]
            count = round(sum(mask.sum() for mask in chosen) / config.repeats)
            found = self._rows(self._values(scores, chosen), labels)
            rows += [replace(row, words=words, notes=count) for row in found]
        for count in config.label_counts:
            if count < 0.9 * labels:
                rows += self._with_labels(count, best, everyone)
        return Measured(
            tuple(rows),
            len(material.labels),
            len(np.unique(material.groups)),
            self._problems.shape[1],
            config.folds,
            config.repeats,
            self._confidence,
            material.covered,
        )

    def _scores(
        self, blocks: Mapping, choices: Mapping[str, Sequence[str]], fold: Fold
    ) -> dict[Arm, Array]:
        material = self._material
        return fold_scores(
            *(blocks, choices, self._problems, material.labels, material.groups, fold),
            self._config,
        )

    def _values(self, scores: Scores, chosen: Sequence[Array]) -> dict[Arm, Array]:
        """Return the AUROC of every arm in every fold, on some of its notes: [folds]."""
        arms = list(scores[0])
        areas = np.array(  # [folds, arms]
            [
                auroc(self._problems[fold.test][mask], np.stack([*one.values()], 2)[mask])
                for fold, one, mask in zip(self._folds, scores, chosen)
            ]
        )
        return {arm: areas[:, at] for at, arm in enumerate(arms)}

    def _with_labels(
        self, count: int, best: Mapping[str, int], everyone: Sequence[Array]
    ) -> list[Row]:
        """Return the rows with so many labels, of the teachers' best layers."""
        seed, labels = self._config.seed, self._material.labels
        choices = {
            _choice(model, features, draw): [str(name) for name in names if name.layer == layer]
            for model, layer in best.items()
            for features in (TEACHER, RANDOM)
            for draw, names in self._states[model, features].items()
        }
        names = {WORDS, TEXT, *(name for found in choices.values() for name in found)}
        blocks = {name: self._blocks[name] for name in self._blocks if name in names}
        scores = [
            self._scores(blocks, choices, subsample(labels, fold, count, (seed, count, at)))
            for at, fold in enumerate(self._folds)
        ]
        return self._rows(self._values(scores, everyone), count)

    def _rows(self, values: Mapping[Arm, Array], labels: int, by_layer: bool = False) -> list[Row]:
        """Return the rows of some notes and so many labels."""
        folds, confidence = self._config.folds, self._confidence

        def interval(one: Array) -> Interval:
            return corrected(one, folds, confidence)

        def gain(name: str, base: str, under: Arm) -> Array:
            return np.asarray(values[name, base] - values[under])

        def row(names: Sequence[str], **what: object) -> Row:
            """Return the row of a choice, or the mean of several draws of one."""
            over = np.array([gain(name, SAID, (SAID, ALONE)) for name in names])
            over_words = np.array([gain(name, WORDS, (WORDS, ALONE)) for name in names])
            alone = np.array([values[name, ALONE] for name in names])
            return Row(
                labels=labels,
                notes=len(self._problems),
                auroc=interval(alone.mean(0)),
                over_words=interval(over_words.mean(0)),
                gain=interval(over.mean(0)),
                **what,  # type: ignore[arg-type]
            )

        bare = {"labels": labels, "notes": len(self._problems)}
        rows = [
            Row(name, auroc=interval(values[name, ALONE]), **bare)  # type: ignore[arg-type]
            for name in (WORDS, TEXT, SAID)
        ]
        for features in (STUDENT_TOKENS, STUDENT_WORDS, TEACHER):
            for model in [one for one, kind in self._states if kind == features]:
                name = _choice(model, features, 0)
                if (name, ALONE) not in values:
                    continue
                layer = None if features == TEACHER else self._states[model, features][0][0].layer
                found = row([name], features=features, model=model, layer=layer)
                if features != TEACHER:
                    rows.append(found)
                    continue
                draws = [_choice(model, RANDOM, draw) for draw in self._states[model, RANDOM]]
                lucky = np.array([gain(one, SAID, (SAID, ALONE)) for one in draws])
                over = gain(name, SAID, (SAID, ALONE))
                rows.append(replace(found, excess=beyond(over, lucky, folds, confidence)))
                if by_layer:
                    rows += [
                        row([str(one)], features=TEACHER, model=model, layer=one.layer)
                        for one in self._states[model, TEACHER][0]
                    ]
                rows.append(row(draws, features=RANDOM, model=model))
                shuffled = _choice(model, SHUFFLED, 0)
                if (shuffled, ALONE) in values:
                    rows.append(row([shuffled], features=SHUFFLED, model=model))
        return rows


def _choice(model: str, features: str, draw: int) -> str:
    return f"{model} {features} * {draw}"


def _best_layer(rows: Sequence[Row], model: str) -> int:
    layers = [
        (row.gain.value, row.layer)
        for row in rows
        if (row.features, row.model) == (TEACHER, model) and row.layer is not None
    ]
    return max(layers)[1]
