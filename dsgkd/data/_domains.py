"""Domains of the synthetic world: how their terms are made, and English notes about these.

A term has a latent *degree* (about standard normal), which is its *subject*'s. In the clinical
domain a subject is a condition and the degree its severity; in the technical one a kind of machine
and its grade. Notes put every term among cues of its degree.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from statistics import NormalDist

import numpy as np

from dsgkd.data import _technical_vocabulary as technical
from dsgkd.data import _vocabulary as clinical
from dsgkd.data._phrasing import Picker


@dataclass(frozen=True)
class Term:
    """An English word of a domain."""

    name: str
    subject: int
    """Number of what it names; the terms of a subject share its stem and its degree."""
    degree: float
    site: str


@dataclass(frozen=True, eq=False)
class Domain:
    """The words of a domain."""

    plain: Mapping[str, float]
    """Terms that exist -> degree."""
    manners: Mapping[str, float]
    """First part of an invented term -> what it tells of the degree."""
    roots: Mapping[str, str]
    """Stem of an invented term -> the plain word for it."""
    suffixes: Mapping[str, float]
    """Last part of an invented term -> what it tells of the degree."""
    stem_seed: int
    """Decides the stems beyond the roots."""
    cues: Mapping[str, Sequence[Sequence[str]]]
    """Name in a template -> phrases of each level of the degree."""
    fillers: Mapping[str, Sequence[str]]
    """Name in a template -> phrases that tell nothing."""
    templates: Sequence[str]


CLINICAL = Domain(
    clinical.PLAIN_TERMS,
    clinical.MANNERS,
    clinical.ROOTS,
    clinical.SUFFIXES,
    0,
    {
        "adjective": clinical.ADJECTIVES,
        "adjective2": clinical.ADJECTIVES,
        "triage": clinical.TRIAGE,
        "disposition": clinical.DISPOSITIONS,
        "sign": clinical.SIGNS,
        "plan": clinical.PLANS,
        "plan2": clinical.PLANS,
    },
    {"age": clinical.AGES, "time": clinical.TIMES},
    clinical.ENGLISH_TEMPLATES,
)
TECHNICAL = Domain(
    technical.PLAIN_TERMS,
    technical.MANNERS,
    technical.ROOTS,
    technical.SUFFIXES,
    1,
    {
        "adjective": technical.ADJECTIVES,
        "adjective2": technical.ADJECTIVES,
        "grade": technical.GRADES,
        "use": technical.USES,
        "reading": technical.READINGS,
        "task": technical.TASKS,
        "task2": technical.TASKS,
    },
    {"unit": technical.UNITS, "time": technical.TIMES},
    technical.TEMPLATES,
)


@lru_cache(maxsize=8)
def stems(domain: Domain, count: int) -> tuple[str, ...]:
    """Return the first so many stems, the same in every world: the roots, then invented ones.

    The technical ones are none of the clinical.
    """
    pick = Picker(np.random.default_rng(domain.stem_seed))
    other = set() if domain is CLINICAL else {*CLINICAL.roots, *stems(CLINICAL, count)}
    found = list(domain.roots)
    while len(found) < count:
        stem = "".join(pick(part) for part in clinical.STEM_SOUNDS)
        if stem not in found and stem not in other:
            found.append(stem)
    return tuple(found[:count])


def make_terms(
    domain: Domain,
    rng: np.random.Generator,
    subjects: int,
    count: int,
    morphology: float,
    others: Set[str] = frozenset(),
) -> tuple[Term, ...]:
    """Make the terms of a domain, the most frequent first.

    Args:
        domain: whose.
        rng: source of chance.
        subjects: how many subjects have invented terms.
        count: how many terms, the plain ones among them.
        morphology: correlation of a term's degree with what its parts tell of it.
        others: words that are not to be made.
    """
    plain = [
        Term(name, subjects + number, degree, "general")
        for number, (name, degree) in enumerate(domain.plain.items())
    ]
    known = stems(domain, subjects)
    sites = rng.choice(list(domain.roots.values()), subjects)
    quantiles = (np.arange(subjects) + 0.5) / subjects
    degrees = rng.permutation([NormalDist().inv_cdf(q) for q in quantiles])

    parts = list(product(domain.manners, domain.suffixes))
    told = np.array([domain.manners[manner] + domain.suffixes[suffix] for manner, suffix in parts])
    told = (told - told.mean()) / told.std()

    invented: list[Term] = []
    extra = count - len(plain) - subjects
    of_subject = np.concatenate([np.arange(subjects), rng.integers(0, subjects, extra)])
    taken = {*domain.plain, *others}
    for subject, noise in zip(of_subject, rng.standard_normal(len(of_subject)), strict=True):
        stem, degree = known[subject], float(degrees[subject])
        wanted = morphology * degree + np.sqrt(1 - morphology**2) * noise
        for choice in np.argsort(np.abs(told - wanted), kind="stable"):
            manner, suffix = parts[choice]
            name = f"{manner}{stem}{suffix}"
            if name not in taken:
                break
        taken.add(name)
        invented.append(Term(name, int(subject), degree, str(sites[subject])))
    order = rng.permutation(len(invented))
    return (*plain, *(invented[i] for i in order))


def write_notes(
    domain: Domain,
    rng: np.random.Generator,
    known: Sequence[Term],
    frequencies: np.ndarray,
    mentions: int,
    count: int,
) -> list[str]:
    """Write short English notes, in which terms stand among cues of their degree.

    Args:
        domain: what they are about.
        rng: source of chance.
        known: the domain's terms.
        frequencies: [terms], share of the notes that are about a term.
        mentions: least number of notes about a term.
        count: how many notes.
    """
    counts = np.full(len(known), mentions)
    rest = rng.choice(len(known), count - counts.sum(), p=frequencies)
    first = rng.permutation(np.concatenate([np.repeat(np.arange(len(known)), counts), rest]))

    # The other term of a note has about the degree of the first.
    degree = np.array([term.degree for term in known])
    by_degree = np.argsort(degree, kind="stable")
    rank = np.empty_like(by_degree)
    rank[by_degree] = np.arange(len(known))
    near = rank[first] + rng.normal(0, 0.05 * len(known), count).astype(int)
    others = by_degree[np.clip(near, 0, len(known) - 1)]

    noisy = degree[first] + rng.normal(0, 0.3, count)
    levels = np.searchsorted([-1.2, -0.4, 0.4, 1.2], noisy)
    pick = Picker(rng)
    notes = []
    for subject, second, level in zip(first, others, levels, strict=True):
        template = pick(domain.templates)
        values = {name: pick(phrases[level]) for name, phrases in domain.cues.items()}
        values |= {name: pick(phrases) for name, phrases in domain.fillers.items()}
        number = pick.number(1, 60)
        notes.append(
            template.format(
                a=known[subject].name,
                b=known[second].name,
                site=known[subject].site,
                number=number,
                **values,
            )
        )
    return notes
