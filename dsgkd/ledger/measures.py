"""Directions of measures: whether more or less of one is better."""

from typing import Literal

Direction = Literal["maximise", "minimise"]


def improvement(value: float, direction: Direction) -> float:
    """Return a value with the sign that makes larger better."""
    return value if direction == "maximise" else -value
