"""Korean sentences and notes of the synthetic world, put together from its words."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from dsgkd.data import _vocabulary as words


class Picker:
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


def everyday(pick: Picker) -> str:
    """Write a sentence of everyday Korean."""
    nouns, verbs, places, adjectives = words.TOPICS[pick.number(0, len(words.TOPICS) - 1)]
    stem, past = pick(verbs).split(":")
    return fill(
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


_AFTER_VOWEL = {"이": "가", "을": "를", "은": "는", "과": "와", "으로": "로", "이라는": "라는"}
"""Korean particles: the form after a consonant, and the form after a vowel."""


def fill(template: str, **values: str) -> str:
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


def age_and_sex(pick: Picker) -> str:
    """Draw a child."""
    return f"{pick.number(1, 14)}세 {pick(('남아', '여아'))}"


def patient_and_onset(pick: Picker, who: str) -> tuple[str, str]:
    """Write how a note opens: the patient, and since when."""
    patient = fill(pick(words.PATIENTS), who=who)
    return patient, fill(pick(words.ONSETS), n=str(pick.number(2, 6)))


def write_note(
    pick: Picker, who: str, names: Sequence[str], signs: float, latin: bool = True
) -> str:
    """Write a Korean note.

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
    patient, onset = patient_and_onset(pick, who)
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
    return fill(template, **values)


def _vital_signs(pick: Picker, signs: float, latin: bool) -> str:
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
