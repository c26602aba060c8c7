"""A synthetic clinical world, for users who have no data yet.

Everything here is invented. A *condition* has a latent severity (about standard normal) and several
English *terms*. A term is either a plain word ("cough") or put together from a manner, the stem of
its condition and a process, in the way of medical Greek and Latin ("haemocardiitis"). Stems say
nothing about severity to those who do not know them; manner and process tell a little of it
(`WorldConfig.morphology`).

- `english_corpus`: notes in English in which every term stands among cues of its severity. A
  teacher can learn from it what the terms mean.
- `technical_corpus`: such notes about machines. A teacher can learn English from it, and nothing
  about the terms.
- `korean_corpus`: everyday Korean and the phrases of clinic notes. A student learns the language
  from it, and nothing about the severity of any term.
- `labelled_notes`: Korean notes with English terms mixed in. The label, emergency or not, follows
  the severity of the terms (`WorldConfig.knowledge`), the vital signs and chance.
- `unlabelled_notes`: further notes of the same kind, which nobody has labelled.
- `glossary`: the terms alone.

A quarter of the term occurrences in the test notes are of terms that the training notes use twice
at most, some never (`familiarity`). The labels tell little about those; a teacher that has read
about them tells their severity without noise, and that is what there is to be gained from it. With
`knowledge = 0` the texts are the same and the label follows the vital signs only: nothing is to be
gained. The sizes are chosen so that two small models and a run of each method take seconds to a
minute on one core.

All functions are pure functions of the configuration.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from dsgkd.configuration import Seed, Share, config
from dsgkd.data import _vocabulary as words
from dsgkd.data._domains import CLINICAL, TECHNICAL, Term, make_terms, stems, write_notes
from dsgkd.data._phrasing import (
    Picker,
    age_and_sex,
    everyday,
    fill,
    patient_and_onset,
    write_note,
)
from dsgkd.errors import InputError

LABEL_NAMES = ("not emergency", "emergency")

MOST_TEXTS = 10_000_000
"""Texts of one kind at most."""


@config
class WorldConfig:
    """What the synthetic world is like, and how much of each text is drawn from it."""

    seed: Seed = 17
    """Seed of everything; each kind of text has its own stream, so sizes do not interfere."""
    conditions: Annotated[int, Ge(1), Le(10_000)] = 150
    """Number of conditions that are named by invented terms, each with a stem of its own."""
    terms: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 500
    """Number of English terms, the plain words (one condition each) among them."""
    zipf: Annotated[float, Ge(0), Le(10)] = 0.6
    """Exponent of the long tail: a term's frequency in the notes is rank ** -zipf."""
    morphology: Share = 0.3
    """Correlation of a term's severity with what its parts tell about it."""
    knowledge: Annotated[float, Ge(0), Le(10)] = 3.5
    """Weight of the terms in the label: log-odds per standard deviation of a note's severity."""
    vitals: Annotated[float, Ge(0), Le(10)] = 1.5
    """Weight of the vital signs in the label: log-odds per standard deviation."""
    positive_share: Annotated[float, Ge(0.001), Le(0.999)] = 0.4
    """Expected share of emergencies."""
    wordless_share: Annotated[float, Ge(0), Le(0.9)] = 0.06
    """Share of notes without any English word."""
    train_notes: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 900
    """Number of labelled training notes."""
    validation_notes: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 400
    """Number of labelled validation notes."""
    test_notes: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 800
    """Number of labelled test notes."""
    unlabelled: Annotated[int, Ge(0), Le(MOST_TEXTS)] = 4000
    """Number of notes without a label."""
    english_sentences: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 40_000
    """Number of lines of the English corpus, about 9 words and signs each."""
    mentions: Annotated[int, Ge(0), Le(MOST_TEXTS)] = 10
    """Least number of lines of the English corpus that are about a given term."""
    korean_sentences: Annotated[int, Ge(1), Le(MOST_TEXTS)] = 24_000
    """Number of lines of the Korean corpus, about 8 words each."""

    def __post_init__(self) -> None:
        fewest = len(words.PLAIN_TERMS) + self.conditions
        most = len(words.PLAIN_TERMS) + 20 * self.conditions
        if not fewest <= self.terms <= most:
            what, remedy = f"terms is {self.terms}", f"choose {fewest} to {most}"
            raise InputError("synthetic world", what, remedy)
        if self.english_sentences < self.mentions * self.terms:
            what = f"english_sentences is {self.english_sentences}"
            remedy = f"choose at least mentions x terms = {self.mentions * self.terms}"
            raise InputError("synthetic world", what, remedy)

    @property
    def language(self) -> "WorldConfig":
        """The same corpora, with all that they do not depend on as it is by default.

        So worlds of one language, such as one with and one without `knowledge`, are equal here.
        """
        return WorldConfig(
            seed=self.seed,
            conditions=self.conditions,
            terms=self.terms,
            zipf=self.zipf,
            morphology=self.morphology,
            english_sentences=self.english_sentences,
            mentions=self.mentions,
            korean_sentences=self.korean_sentences,
        )


def _generator(world: WorldConfig, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([world.seed, stream]))


# ------------------------------------------------------------------------------------- terms


@lru_cache(maxsize=8)
def _terms(world: WorldConfig) -> tuple[Term, ...]:
    """All terms, the most frequent first."""
    rng = _generator(world, 0)
    return make_terms(CLINICAL, rng, world.conditions, world.terms, world.morphology)


def _frequencies(world: WorldConfig) -> np.ndarray:
    weights = np.arange(1, world.terms + 1, dtype=float) ** -world.zipf
    return weights / weights.sum()


def terms(world: WorldConfig) -> pa.Table:
    """The world's English terms, the most frequent first.

    Columns: term, condition (number), severity (standard deviations), frequency (share of the
    term occurrences in labelled notes).
    """
    known = _terms(world)
    return pa.table(
        {
            "term": [term.name for term in known],
            "condition": pa.array([term.subject for term in known], pa.int32()),
            "severity": [term.degree for term in known],
            "frequency": _frequencies(world),
        }
    )


# ------------------------------------------------------------------------------------ English


def english_corpus(world: WorldConfig) -> list[str]:
    """Short clinical notes in English, in which terms stand among cues of their severity."""
    return write_notes(
        *(CLINICAL, _generator(world, 1), _terms(world)),
        *(_frequencies(world), world.mentions, world.english_sentences),
    )


def technical_corpus(world: WorldConfig) -> list[str]:
    """Short English notes about machines, in which terms stand among cues of price, size and speed.

    As many words of every kind as in `english_corpus`, made in the same way, and as many notes; but
    none of the world's terms, and no cue of severity. A teacher of the wrong domain learns from it.
    """
    others = {term.name for term in _terms(world)}
    known = make_terms(
        TECHNICAL, _generator(world, 8), world.conditions, world.terms, world.morphology, others
    )
    return write_notes(
        *(TECHNICAL, _generator(world, 9), known),
        *(_frequencies(world), world.mentions, world.english_sentences),
    )


# ------------------------------------------------------------------------------------- Korean


def korean_corpus(world: WorldConfig) -> list[str]:
    """Everyday Korean, phrases of clinic notes, and English words that are no term of the world."""
    pick = Picker(_generator(world, 2))
    known = {term.name for term in _terms(world)}
    known_stems = stems(CLINICAL, world.conditions)
    corpus = []
    for _ in range(world.korean_sentences):
        kind = pick.number(1, 100)
        if kind <= 50:
            text = everyday(pick)
        elif kind <= 56:
            text = f"{pick(words.WHENS)} {pick(words.WEATHER)}{pick(words.STATE_ENDINGS)}"
        elif kind <= 62:
            text = fill(pick(words.ENGLISH_LINES), a=pick(words.EVERYDAY_ENGLISH))
        elif kind <= 80:
            text = fill(pick(words.WORD_BOOK_LINES), a=_scholarly(pick, known_stems, known))
        elif kind <= 88:
            patient, onset = patient_and_onset(pick, age_and_sex(pick))
            nouns = {"noun": pick(words.CLINIC_NOUNS), "noun2": pick(words.CLINIC_NOUNS)}
            text = fill(pick(words.CLINIC_LINES), patient=patient, onset=onset, **nouns)
        else:
            symptoms = [pick(words.KOREAN_SYMPTOMS) for _ in range(3)]
            signs = pick.number(-2000, 2000) / 1000
            text = write_note(pick, age_and_sex(pick), symptoms, signs, latin=pick.chance(0.5))
        corpus.append(text)
    return corpus


def _scholarly(pick: Picker, stems: Sequence[str], known: set[str]) -> str:
    """A word from the same parts as the terms, but none of them."""
    parts = (tuple(words.MANNERS), stems, tuple(words.SUFFIXES))
    while True:
        name = "".join(pick(part) for part in parts)
        if name not in known:
            return name


# ------------------------------------------------------------------------------ labelled notes


def labelled_notes(world: WorldConfig) -> pa.Table:
    """Korean notes with English terms, labelled emergency or not.

    Columns: text, label (int64, 1 = emergency), label_name, split (train, validation, test),
    patient (a patient's notes are all in one split). The log-odds of an emergency are
    `knowledge` * severity + `vitals` * signs + a constant that gives `positive_share`; the
    severity of a note is the mean and the maximum of its terms' severities in equal parts,
    standardised over the notes, and 0 in notes without terms.
    """
    rng = _generator(world, 3)
    pick = Picker(_generator(world, 4))
    splits, patients = _patients(world, rng)
    texts, raw, signs = _notes_of(world, patients, rng, pick)

    standard = np.nan_to_num((raw - np.nanmean(raw)) / np.nanstd(raw))
    score = world.knowledge * standard + world.vitals * signs
    from scipy.optimize import brentq  # deferred, for whoever only wants the configuration
    from scipy.special import expit

    constant = brentq(lambda c: expit(score + c).mean() - world.positive_share, -99, 99)
    labels = _generator(world, 5).random(len(texts)) < expit(score + constant)
    return pa.table(
        {
            "text": texts,
            "label": labels.astype(np.int64),
            "label_name": [LABEL_NAMES[label] for label in labels.astype(int)],
            "split": splits,
            "patient": patients,
        }
    )


def unlabelled_notes(world: WorldConfig) -> list[str]:
    """Korean notes with English terms, all different, none of them a labelled one."""
    rng, pick = _generator(world, 6), Picker(_generator(world, 7))
    labelled = set(labelled_notes(world)["text"].to_pylist()) if world.unlabelled else set()
    found: dict[str, None] = {}
    while (lacking := world.unlabelled - len(found)) > 0:
        texts, _, _ = _notes_of(world, range(lacking), rng, pick)
        found |= dict.fromkeys(text for text in texts if text not in labelled)
    return list(found)


def glossary(world: WorldConfig) -> list[str]:
    """The world's English terms, the most frequent first."""
    return [term.name for term in _terms(world)]


def _notes_of(
    world: WorldConfig, patients: Sequence[object], rng: np.random.Generator, pick: Picker
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Write a note for each visit of a patient.

    Returns:
        The texts; `[notes]` mean plus maximum of the severities of a note's terms, NaN without
        terms; and `[notes]` what the vital signs tell, about standard normal.
    """
    known = _terms(world)
    severity = np.array([term.degree for term in known])
    n = len(patients)
    signs = rng.standard_normal(n)
    cumulative = np.cumsum(_frequencies(world))
    how_many = np.where(rng.random(n) < world.wordless_share, 0, 1 + rng.binomial(5, 0.3, n))

    texts: list[str] = []
    who: dict[object, str] = {}
    raw = np.full(n, np.nan)
    for row in range(n):
        draws = np.searchsorted(cumulative, rng.random(how_many[row]))
        chosen = list(dict.fromkeys(np.minimum(draws, world.terms - 1).tolist()))
        if chosen:
            raw[row] = severity[chosen].mean() + severity[chosen].max()
        names = [known[i].name for i in chosen]
        names = names or [pick(words.KOREAN_SYMPTOMS) for _ in range(2)]
        patient = who.setdefault(patients[row], age_and_sex(pick))
        texts.append(write_note(pick, patient, names, signs[row], latin=bool(chosen)))
    return texts, raw, signs


def _patients(world: WorldConfig, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Split and patient of every note; one patient in four has two or three notes."""
    splits: list[str] = []
    patients: list[str] = []
    number = 0
    sizes = (world.train_notes, world.validation_notes, world.test_notes)
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        left = size
        while left:
            visits = min(left, int(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07])))
            number += 1
            splits += [split] * visits
            patients += [f"P{number:05d}"] * visits
            left -= visits
    return splits, patients


def familiarity(world: WorldConfig, notes: pa.Table | None = None) -> dict[str, float]:
    """How well do the training notes know the test notes' terms?

    Shares of the term occurrences in the test notes by the number of occurrences of the same term
    in the training notes: keys "0", "1-2" and "3+".
    """
    notes = labelled_notes(world) if notes is None else notes
    known = {term.name for term in _terms(world)}
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, split in zip(notes["text"].to_pylist(), notes["split"].to_pylist(), strict=True):
        found[split].update(word for word in re.findall(r"[a-z]+", text) if word in known)
    shares = {"0": 0.0, "1-2": 0.0, "3+": 0.0}
    for term, occurrences in found["test"].items():
        seen = found["train"][term]
        shares["0" if seen == 0 else "1-2" if seen <= 2 else "3+"] += occurrences
    total = sum(shares.values())
    return {key: value / total for key, value in shares.items()}
