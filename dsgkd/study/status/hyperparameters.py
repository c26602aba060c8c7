"""The hyperparameters by which trials differ, in a few words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dsgkd.models.names import CORPUS_PREFIX

Settings = tuple[tuple[str, str], ...]
"""(name, value as text) of a trial's settings, those that a reader looks for first in front."""

_FIRST = (
    *("encoder_lr", "alpha", "mapping", "beta", "max_transfer_words", "teacher", "classifier_lr"),
)
_LAST = "seed"
_HEADLINE = ("encoder_lr", "alpha", "mapping")
"""Shown of a trial that has nobody to differ from."""
_SHORT = {
    "encoder_lr": "lr",
    "classifier_lr": "head lr",
    "projection_lr": "proj lr",
    "batch_size": "batch",
    "max_transfer_words": "words",
    "stop_when_stale": "stop",
}
_SPEAKS_FOR_ITSELF = frozenset(
    {"mapping", "teacher", "model", "hidden", "attention", "kind", "teacher_weights"}
)
_SECTIONS = ("student", "task", "distillation", "optimisation", "selection")


def leaves(configuration: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (section, field, value) of a run's settings; nothing that describes the notes.

    Args:
        configuration: `asdict` of a `RunConfig`, or what JSON made of it.
    """
    for section in _SECTIONS:
        fields = configuration.get(section)
        if isinstance(fields, Mapping) and (section != "distillation" or fields.get("teacher")):
            yield from ((section, name, value) for name, value in fields.items())
    for name in ("max_length", "seed"):
        if name in configuration:
            yield "", name, configuration[name]


def settings_of(configuration: Mapping[str, Any]) -> Settings:
    """Return the settings of a run from its whole configuration."""
    return _ordered({name: value for _, name, value in leaves(configuration)})


def _ordered(values: Mapping[str, Any]) -> Settings:
    first = [name for name in _FIRST if name in values]
    rest = sorted(name for name in values if name not in (*_FIRST, _LAST))
    last = [_LAST] if _LAST in values else []
    return tuple((name, _text(values[name])) for name in (*first, *rest, *last))


def _text(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value) or value == 0 or 0.01 <= abs(value) < 1000:
            return f"{value:.3g}"
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    if isinstance(value, str):
        names = (part.removeprefix(CORPUS_PREFIX) for part in value.split("+"))
        return "+".join(PurePath(name).name for name in names) or value
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def differing(trials: Sequence[Settings]) -> list[tuple[str, ...]]:
    """Return, for each of some comparable trials, the settings in which they differ.

    Like `("lr 5e-4", "alpha 3", "uniform")`. Where nothing differs, the best known
    settings are named.
    """
    values: dict[str, set[str]] = {}
    for settings in trials:
        for name, text in settings:
            values.setdefault(name, set()).add(text)
    names = {name for name, texts in values.items() if len(texts) > 1} or {*_HEADLINE}
    return [tuple(_pair(n, text) for n, text in one if n in names) for one in trials]


def _pair(name: str, text: str) -> str:
    return text if name in _SPEAKS_FOR_ITSELF else f"{_SHORT.get(name, name)} {text}"
