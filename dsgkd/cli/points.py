"""The notation of points that a search tries first."""

from typing import Any

from dsgkd.errors import InputError
from dsgkd.study.config import StudyConfig
from dsgkd.study.search.config import ParameterPoint
from dsgkd.study.search.space import point_of
from dsgkd.training.config import paper_preset

_BASE = ("encoder_lr", "classifier_lr", "alpha")
"""What the point `base` says; the rest is drawn."""


def parse_points(text: str, study: StudyConfig) -> tuple[ParameterPoint, ...]:
    """Read points that are separated by semicolons.

    Args:
        text: each is `base` (the study's own run), `paper`, or values such as `alpha=3,beta=0`.
        study: whose space they lie in.

    Raises:
        InputError: one cannot be read, or names what the space does not know.
    """
    own, paper = point_of(study.run), point_of(paper_preset(study.run))
    known: dict[str, ParameterPoint] = {"base": {name: own[name] for name in _BASE}, "paper": paper}
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        point = known[part] if part in known else _point(part)
        unknown = [name for name in point if name not in {*own, "teacher"}]
        if unknown and not study.space.function:
            names = ", ".join([*own, "teacher"])
            raise InputError("--first", f"no parameter '{unknown[0]}'", f"choose of {names}")
        found.append(point)
    return tuple(found)


def _point(text: str) -> ParameterPoint:
    point: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            remedy = "write base, paper, or alpha=3,beta=0"
            raise InputError("--first", f"'{text}' cannot be read", remedy)
        point[name.strip()] = _value(value.strip())
    return point


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
