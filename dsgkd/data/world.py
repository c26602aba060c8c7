"""Which data does the platform run on when the user has none yet? A synthetic clinical world.

Everything here is invented. A *condition* has a latent severity (about standard normal) and several
English *terms*. A term is either a plain word ("cough") or put together from a manner, the stem of
its condition and a process, in the way of medical Greek and Latin ("haemocardiitis"). Stems say
nothing about severity to those who do not know them; manner and process tell a little of it
(`WorldConfig.morphology`).

- `english_corpus`: notes in English in which every term stands among cues of its severity. A
  teacher can learn from it what the terms mean.
- `korean_corpus`: everyday Korean and the phrases of clinic notes. A student learns the language
  from it, and nothing about the severity of any term.
- `labelled_notes`: Korean notes with English terms mixed in. The label, emergency or not, follows
  the severity of the terms (`WorldConfig.knowledge`), the vital signs and chance.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from statistics import NormalDist

import numpy as np
import pyarrow as pa
from scipy.optimize import brentq
from scipy.special import expit

from dsgkd.data import _vocabulary as words
from dsgkd.errors import InputError

LABEL_NAMES = ("not emergency", "emergency")


@dataclass(frozen=True)
class WorldConfig:
    """What the synthetic world is like, and how much of each text is drawn from it."""

    seed: int = 17
    """Seed of everything; each kind of text has its own stream, so sizes do not interfere."""
    conditions: int = 150
    """Number of conditions that are named by invented terms, each with a stem of its own."""
    terms: int = 500
    """Number of English terms, the plain words (one condition each) among them."""
    zipf: float = 0.6
    """Exponent of the long tail: a term's frequency in the notes is rank ** -zipf."""
    morphology: float = 0.3
    """Correlation of a term's severity with what its parts tell about it, 0 to 1."""
    knowledge: float = 3.5
    """Weight of the terms in the label: log-odds per standard deviation of a note's severity."""
    vitals: float = 1.5
    """Weight of the vital signs in the label: log-odds per standard deviation."""
    positive_share: float = 0.4
    """Expected share of emergencies, 0 to 1."""
    wordless_share: float = 0.06
    """Share of notes without any English word, 0 to 1."""
    train_notes: int = 900
    """Number of labelled training notes."""
    validation_notes: int = 400
    """Number of labelled validation notes."""
    test_notes: int = 800
    """Number of labelled test notes."""
    english_sentences: int = 40_000
    """Number of lines of the English corpus, about 9 words and signs each."""
    mentions: int = 10
    """Least number of lines of the English corpus that are about a given term."""
    korean_sentences: int = 24_000
    """Number of lines of the Korean corpus, about 8 words each."""

    def __post_init__(self) -> None:
        fewest = len(words.PLAIN_TERMS) + self.conditions
        most = len(words.PLAIN_TERMS) + 20 * self.conditions
        sizes = ("conditions", "train_notes", "validation_notes", "test_notes", "korean_sentences")
        checks = [(name, getattr(self, name) >= 1, "choose 1 or more") for name in sizes]
        checks += [
            ("terms", fewest <= self.terms <= most, f"choose {fewest} to {most}"),
            ("morphology", 0 <= self.morphology <= 1, "choose 0 to 1"),
            ("positive_share", 0 < self.positive_share < 1, "choose a share between 0 and 1"),
            ("wordless_share", 0 <= self.wordless_share < 1, "choose 0 to below 1"),
            ("mentions", self.mentions >= 0, "choose 0 or more"),
            (
                "english_sentences",
                self.english_sentences >= max(1, self.mentions * self.terms),
                f"choose at least mentions x terms = {self.mentions * self.terms}",
            ),
        ]
        for name, good, remedy in checks:
            if not good:
                raise InputError("synthetic world", f"{name} is {getattr(self, name)}", remedy)


def _generator(world: WorldConfig, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([world.seed, stream]))


# ------------------------------------------------------------------------------------- terms


@dataclass(frozen=True)
class _Term:
    name: str
    condition: int
    severity: float
    site: str


@lru_cache(maxsize=8)
def _terms(world: WorldConfig) -> tuple[_Term, ...]:
    """All terms, the most frequent first."""
    rng = _generator(world, 0)
    plain = [
        _Term(name, world.conditions + number, severity, "general")
        for number, (name, severity) in enumerate(words.PLAIN_TERMS.items())
    ]
    stems = _stems(world.conditions)
    sites = rng.choice(list(words.ROOTS.values()), world.conditions)
    quantiles = (np.arange(world.conditions) + 0.5) / world.conditions
    severities = rng.permutation([NormalDist().inv_cdf(q) for q in quantiles])

    parts = list(product(words.MANNERS, words.SUFFIXES))
    told = np.array([words.MANNERS[manner] + words.SUFFIXES[suffix] for manner, suffix in parts])
    told = (told - told.mean()) / told.std()

    invented: list[_Term] = []
    extra = world.terms - len(plain) - world.conditions
    of_condition = np.concatenate(
        [np.arange(world.conditions), rng.integers(0, world.conditions, extra)]
    )
    taken = set(words.PLAIN_TERMS)
    for condition, noise in zip(of_condition, rng.standard_normal(len(of_condition)), strict=True):
        stem, severity = stems[condition], float(severities[condition])
        wanted = world.morphology * severity + np.sqrt(1 - world.morphology**2) * noise
        for choice in np.argsort(np.abs(told - wanted), kind="stable"):
            manner, suffix = parts[choice]
            name = f"{manner}{stem}{suffix}"
            if name not in taken:
                break
        taken.add(name)
        invented.append(_Term(name, int(condition), severity, str(sites[condition])))
    order = rng.permutation(len(invented))
    return (*plain, *(invented[i] for i in order))


@lru_cache(maxsize=8)
def _stems(count: int) -> tuple[str, ...]:
    """The first so many stems, the same in every world: the organs', then invented ones."""
    pick = _Picker(np.random.default_rng(0))
    stems = list(words.ROOTS)
    while len(stems) < count:
        stem = "".join(pick(part) for part in words.STEM_SOUNDS)
        if stem not in stems:
            stems.append(stem)
    return tuple(stems[:count])


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
            "condition": pa.array([term.condition for term in known], pa.int32()),
            "severity": [term.severity for term in known],
            "frequency": _frequencies(world),
        }
    )


class _Picker:
    """Draws items of sequences; much faster than one generator call each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = self._stream(rng)

    @staticmethod
    def _stream(rng: np.random.Generator) -> Iterator[float]:
        while True:
            yield from rng.random(8192).tolist()

    def chance(self, probability: float) -> bool:
        return next(self._draws) < probability

    def number(self, low: int, high: int) -> int:
        """An integer, low <= number <= high."""
        return low + int(next(self._draws) * (high - low + 1))

    def __call__(self, items: Sequence[str]) -> str:
        return items[int(next(self._draws) * len(items))]


# ------------------------------------------------------------------------------------ English


def english_corpus(world: WorldConfig) -> list[str]:
    """Short clinical notes in English, in which terms stand among cues of their severity."""
    known = _terms(world)
    rng = _generator(world, 1)
    n = world.english_sentences
    counts = np.full(world.terms, world.mentions)
    rest = rng.choice(world.terms, n - counts.sum(), p=_frequencies(world))
    first = rng.permutation(np.concatenate([np.repeat(np.arange(world.terms), counts), rest]))

    # The other term of a note is about as severe as the first.
    severity = np.array([term.severity for term in known])
    by_severity = np.argsort(severity, kind="stable")
    rank = np.empty_like(by_severity)
    rank[by_severity] = np.arange(world.terms)
    near = rank[first] + rng.normal(0, 0.05 * world.terms, n).astype(int)
    others = by_severity[np.clip(near, 0, world.terms - 1)]

    noisy = severity[first] + rng.normal(0, 0.3, n)
    levels = np.searchsorted([-1.2, -0.4, 0.4, 1.2], noisy)
    pick = _Picker(rng)
    corpus = []
    for subject, second, level in zip(first, others, levels, strict=True):
        corpus.append(
            pick(words.ENGLISH_TEMPLATES).format(
                a=known[subject].name,
                b=known[second].name,
                site=known[subject].site,
                adjective=pick(words.ADJECTIVES[level]),
                adjective2=pick(words.ADJECTIVES[level]),
                triage=pick(words.TRIAGE[level]),
                disposition=pick(words.DISPOSITIONS[level]),
                sign=pick(words.SIGNS[level]),
                plan=pick(words.PLANS[level]),
                plan2=pick(words.PLANS[level]),
                age=pick(words.AGES),
                time=pick(words.TIMES),
                number=pick.number(1, 60),
            )
        )
    return corpus


# ------------------------------------------------------------------------------------- Korean


def korean_corpus(world: WorldConfig) -> list[str]:
    """Everyday Korean, phrases of clinic notes, and English words that are no term of the world."""
    pick = _Picker(_generator(world, 2))
    known = {term.name for term in _terms(world)}
    stems = _stems(world.conditions)
    corpus = []
    for _ in range(world.korean_sentences):
        kind = pick.number(1, 100)
        if kind <= 50:
            text = _everyday(pick)
        elif kind <= 56:
            text = f"{pick(words.WHENS)} {pick(words.WEATHER)}{pick(words.STATE_ENDINGS)}"
        elif kind <= 62:
            text = _fill(pick(words.ENGLISH_LINES), a=pick(words.EVERYDAY_ENGLISH))
        elif kind <= 80:
            text = _fill(pick(words.WORD_BOOK_LINES), a=_scholarly(pick, stems, known))
        elif kind <= 88:
            patient, onset = _opening(pick, _patient(pick))
            nouns = {"noun": pick(words.CLINIC_NOUNS), "noun2": pick(words.CLINIC_NOUNS)}
            text = _fill(pick(words.CLINIC_LINES), patient=patient, onset=onset, **nouns)
        else:
            symptoms = [pick(words.KOREAN_SYMPTOMS) for _ in range(3)]
            signs = pick.number(-2000, 2000) / 1000
            text = _note(pick, _patient(pick), symptoms, signs, latin=pick.chance(0.5))
        corpus.append(text)
    return corpus


def _everyday(pick: _Picker) -> str:
    nouns, verbs, places, adjectives = words.TOPICS[pick.number(0, len(words.TOPICS) - 1)]
    stem, past = pick(verbs).split(":")
    return _fill(
        pick(words.EVERYDAY_LINES),
        when=pick(words.WHENS),
        until=pick(words.UNTILS),
        who=pick(words.PEOPLE),
        who2=pick(words.PEOPLE),
        place=pick(places),
        noun=pick(nouns),
        noun2=pick(nouns),
        stem=stem,
        past=past,
        felt=pick(adjectives),
        stemend=pick(words.STEM_ENDINGS),
        pastend=pick(words.PAST_ENDINGS),
        feltend=pick(words.STATE_ENDINGS),
    )


def _scholarly(pick: _Picker, stems: Sequence[str], known: set[str]) -> str:
    """A word from the same parts as the terms, but none of them."""
    parts = (tuple(words.MANNERS), stems, tuple(words.SUFFIXES))
    while True:
        name = "".join(pick(part) for part in parts)
        if name not in known:
            return name


_AFTER_VOWEL = {"이": "가", "을": "를", "은": "는", "과": "와", "으로": "로", "이라는": "라는"}
"""Korean particles: the form after a consonant, and the form after a vowel."""


def _fill(template: str, **values: str) -> str:
    """Replace `{name}` by its value, and `{name}{이}` by its value with the fitting particle."""

    def replace(match: re.Match[str]) -> str:
        name, particle = match.groups()
        return values[name] + (_particle_after(values[name], particle) if particle else "")

    return re.sub(rf"\{{([a-z0-9]+)\}}(?:\{{({'|'.join(_AFTER_VOWEL)})\}})?", replace, template)


def _particle_after(word: str, particle: str) -> str:
    """The form of a particle after a word.

    After a Latin word it follows the usual Korean reading, in which only l, m, n, ng and c
    close the last syllable ("vomiting으로", "pain이", "colic으로", "fever로").
    """
    last, rieul = word[-1], 8
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
    else:
        final = rieul if last == "l" else int(word.endswith(("m", "n", "ng", "c")))
    closed = final and not (final == rieul and particle == "으로")
    return particle if closed else _AFTER_VOWEL[particle]


# ------------------------------------------------------------------------------ labelled notes


def _patient(pick: _Picker) -> str:
    return f"{pick.number(1, 14)}세 {pick(('남아', '여아'))}"


def _opening(pick: _Picker, who: str) -> tuple[str, str]:
    patient = _fill(pick(words.PATIENTS), who=who)
    return patient, _fill(pick(words.ONSETS), n=str(pick.number(2, 6)))


def _note(pick: _Picker, who: str, names: Sequence[str], signs: float, latin: bool = True) -> str:
    """One Korean note.

    Args:
        pick: source of chance.
        who: age and sex.
        names: English terms or Korean symptoms, at least one.
        signs: what the vital signs tell, about standard normal, high is bad.
        latin: whether other words than `names` may have Latin letters.
    """
    left = list(names)
    two = len(left) > 1 and pick.chance(0.5)
    chief = pick(words.CHIEF_TWO if two else words.CHIEF_ONE)
    patient, onset = _opening(pick, who)
    opening = [patient, onset] if pick.chance(0.5) else [patient]
    clauses = [" ".join((*opening, _about(chief, left)))]
    while left:
        two = len(left) > 1 and pick.chance(0.6)
        clauses.append(_about(pick(words.ALSO_TWO if two else words.ALSO_ONE), left))
    clauses.append(_vital_signs(pick, signs, latin))
    clauses.append(pick(words.STATES[_level(signs + pick.number(-600, 600) / 1000)]))
    if pick.chance(0.3):
        clauses.append(pick(words.CLOSINGS if latin else words.WORDLESS_CLOSINGS))
    return ". ".join(clauses) + "."


def _about(template: str, left: list[str]) -> str:
    """Fill a template with the next one or two of the names that are left."""
    values = {name: left.pop(0) for name in ("a", "b") if f"{{{name}}}" in template}
    return _fill(template, **values)


def _vital_signs(pick: _Picker, signs: float, latin: bool) -> str:
    """Two signs in words, or four measurements, each following `signs` with its own deviation."""

    def deviating() -> float:
        return signs + pick.number(-1000, 1000) / 1000

    if latin and pick.chance(0.25):
        temperature, pulse = 37.6 + 0.6 * deviating(), round(118 + 16 * deviating())
        breaths, oxygen = round(27 + 5 * deviating()), min(100, round(96.5 - 1.6 * deviating()))
        return f"V/S: BT {temperature:.1f}, HR {pulse}, RR {breaths}, SpO2 {oxygen}%"
    first = pick.number(0, len(words.VITAL_SIGNS) - 1)
    second = (first + pick.number(1, len(words.VITAL_SIGNS) - 1)) % len(words.VITAL_SIGNS)
    return ", ".join(words.VITAL_SIGNS[sign][_level(deviating())] for sign in (first, second))


def _level(signs: float) -> int:
    """0, 1 or 2: well, middling, poorly."""
    return 0 if signs < -0.5 else 1 if signs < 0.5 else 2


def labelled_notes(world: WorldConfig) -> pa.Table:
    """Korean notes with English terms, labelled emergency or not.

    Columns: text, label (int64, 1 = emergency), label_name, split (train, validation, test),
    patient (a patient's notes are all in one split). The log-odds of an emergency are
    `knowledge` * severity + `vitals` * signs + a constant that gives `positive_share`; the
    severity of a note is the mean and the maximum of its terms' severities in equal parts,
    standardised over the notes, and 0 in notes without terms.
    """
    known = _terms(world)
    severity = np.array([term.severity for term in known])
    rng = _generator(world, 3)
    pick = _Picker(_generator(world, 4))
    splits, patients = _patients(world, rng)
    n = len(splits)
    signs = rng.standard_normal(n)
    cumulative = np.cumsum(_frequencies(world))
    how_many = np.where(rng.random(n) < world.wordless_share, 0, 1 + rng.binomial(5, 0.3, n))

    texts: list[str] = []
    who: dict[str, str] = {}
    raw = np.full(n, np.nan)
    for row in range(n):
        draws = np.searchsorted(cumulative, rng.random(how_many[row]))
        chosen = list(dict.fromkeys(np.minimum(draws, world.terms - 1).tolist()))
        if chosen:
            raw[row] = severity[chosen].mean() + severity[chosen].max()
        names = [known[i].name for i in chosen]
        names = names or [pick(words.KOREAN_SYMPTOMS) for _ in range(2)]
        age_and_sex = who.setdefault(patients[row], _patient(pick))
        texts.append(_note(pick, age_and_sex, names, signs[row], latin=bool(chosen)))

    standard = np.nan_to_num((raw - np.nanmean(raw)) / np.nanstd(raw))
    score = world.knowledge * standard + world.vitals * signs
    constant = brentq(lambda c: expit(score + c).mean() - world.positive_share, -99, 99)
    labels = _generator(world, 5).random(n) < expit(score + constant)
    return pa.table(
        {
            "text": texts,
            "label": labels.astype(np.int64),
            "label_name": [LABEL_NAMES[label] for label in labels.astype(int)],
            "split": splits,
            "patient": patients,
        }
    )


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
