"""What may be said of a study, in one sentence, by rules that were fixed beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

MINIMUM_PAIRS = 3
"""With fewer seeds than this nothing is claimed."""
LEVEL = 0.05
"""A difference counts if its p, adjusted for the study's comparisons (Holm), is below."""

Row = Mapping[Any, Any]


class Verdict(NamedTuple):
    """Whether domain knowledge moved, and what to say."""

    claim: bool
    sentence: str


def verdict(differences: pd.DataFrame, names: Mapping[str, str] | None = None) -> Verdict:
    """Return what may be said about one method, given its rows of `analysis.differences`.

    The claim that domain knowledge moved needs all of this: the method was compared with at least
    one baseline and one control, over at least `MINIMUM_PAIRS` seeds each; it is better than each
    control, and better than each baseline. Better: the difference is on the better side of zero,
    and p, adjusted by Holm over all comparisons of distillation in the study, is below `LEVEL`.
    Before the test split is read nothing is claimed.

    Args:
        differences: rows of one study and method, on one split and measure.
        names: how to call methods other than by their names.
    """
    rows = differences.to_dict("records")
    if not rows:
        return Verdict(False, "No claim: no method was confirmed beside a baseline.")
    name = (names or {}).get(rows[0]["method"], rows[0]["method"])
    claim, sentence = _judged(rows, name)
    if claim and rows[0]["split"] != "test":
        claim, sentence = False, f"No claim before the test split is read; so far: {sentence}"
    if any(row["interval"] == "t" and row["pairs"] > 1 for row in rows):
        sentence += " These intervals are over seeds alone: other notes may say otherwise."
    return Verdict(claim, sentence)


def _judged(rows: Sequence[Row], name: str) -> Verdict:
    baselines = [row for row in rows if row["role"] == "baseline"]
    controls = [row for row in rows if row["role"] == "control"]
    fewest = min(rows, key=lambda row: row["pairs"])
    if fewest["pairs"] < MINIMUM_PAIRS:
        seeds = f"{fewest['pairs']} seed{'' if fewest['pairs'] == 1 else 's'}"
        both = f"{name} and {fewest['against']} share {seeds}"
        return Verdict(False, f"No claim: {both}, at least {MINIMUM_PAIRS} are needed.")
    if not baselines:
        return Verdict(False, f"No claim: {name} was not compared with a baseline.")
    lost = [row for row in baselines if not is_better(row)]
    tied = [row for row in controls if not is_better(row)]
    if lost:
        beats = "beats every control, but " if controls and not tied else ""
        more = f", and not better than {_listed(tied)}" if tied else ""
        return Verdict(False, f"No claim: {name} {beats}{_not_better(lost)}{more}.")
    gain = f"{name} beats the baseline{_plural(baselines)} ({', '.join(map(_short, baselines))})"
    if not controls:
        why = "without a control no gain can be credited to what the teacher knows"
        return Verdict(False, f"No claim: {gain}, but {why}.")
    if tied:
        why = "what helps is distilling as such, not the domain"
        return Verdict(False, f"No claim: {gain}, but {_not_better(tied)}: {why}.")
    smallest = _figures(min(controls, key=_gain))
    many = "every control (smallest difference:" if len(controls) > 1 else "the control ("
    also = gain.removeprefix(f"{name} beats ")
    sentence = f"{name} beats {many} {smallest}) and {also}".replace("( ", "(")
    return Verdict(True, f"Domain knowledge moved: {sentence}.")


def is_better(row: Row) -> bool:
    """Whether a row's method is better than what it is compared with."""
    return _gain(row) > 0 and row["p_holm"] < LEVEL


def _gain(row: Row) -> float:
    return float(-row["mean"] if row["direction"] == "minimise" else row["mean"])


def _not_better(rows: Sequence[Row]) -> str:
    worse = [row for row in rows if _gain(row) < 0 and row["p_holm"] < LEVEL]
    if worse:
        return f"is worse than {_listed(worse)}"
    return f"is not better than {_listed(rows)}"


def _listed(rows: Sequence[Row]) -> str:
    return " and ".join(map(_figures, rows))


def _plural(rows: Sequence[Row]) -> str:
    return "" if len(rows) == 1 else "s"


def _figures(row: Row) -> str:
    bounds = f"[{number(row['low'])}, {number(row['high'])}]"
    return f"{_short(row)} {bounds}, {p_value(row['p_holm'])}"


def _short(row: Row) -> str:
    return f"{row['against']} {number(row['mean'], True)}"


def number(value: float, signed: bool = False) -> str:
    """Return a number with three decimals, without the zero before the point."""
    if pd.isna(value):
        return "-"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def p_value(p: float) -> str:
    """Return "p = .012", or "p < .0001" for less."""
    if pd.isna(p):
        return "p unknown"
    return "p < .0001" if p < 0.0001 else f"p = {p:.2g}".replace("0.", ".", 1)
