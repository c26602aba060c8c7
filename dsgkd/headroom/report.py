"""The headroom as lines for a terminal, as rows of the ledger, and as JSON."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from dsgkd.headroom.check import Headroom
from dsgkd.headroom.crossvalidation import SAID, TEXT, WORDS
from dsgkd.headroom.features import RANDOM, SHUFFLED, STUDENT_TOKENS, STUDENT_WORDS, TEACHER
from dsgkd.headroom.measurement import ALL, FAMILIAR, RARE, UNSEEN, Measured, Row
from dsgkd.headroom.verdict import figure, signed, unsigned

LABELS = {
    WORDS: "words alone",
    TEXT: "whole text (characters)",
    SAID: "text and words",
    STUDENT_TOKENS: "its tokens, untrained",
    STUDENT_WORDS: "its words, untrained",
    TEACHER: "its words",
    RANDOM: "random weights",
    SHUFFLED: "words shuffled by type",
}
GROUPS = {
    FAMILIAR: "every word in 3 or more training notes",
    RARE: "some word in 1 or 2",
    UNSEEN: "some word in none",
}


def brief(headroom: Headroom) -> Iterator[str]:
    """Yield the verdicts, and the table of all labels and all notes."""
    measured = headroom.measured
    for verdict in headroom.verdicts:
        yield verdict.sentence
    if headroom.verdicts[0].finding == "headroom":
        best = headroom.verdicts[0]
        yield f"suggested: --mapping {headroom.mapping} (layer {best.layer} of {best.teacher})"
    yield _heading(measured)
    yield from _table(_main_rows(measured))


def full(headroom: Headroom) -> Iterator[str]:
    """Yield everything: `brief`, then the learning curve and the groups of notes."""
    measured = headroom.measured
    yield from brief(headroom)
    yield ""
    yield "by number of labels: AUROC of text and words, and what a teacher's words add"
    yield from _compared(measured, [(_count(row.labels), row) for row in _curve(measured)])
    yield ""
    yield "by the least known word of a note"
    groups = [
        (f"{GROUPS[row.words]} ({row.notes:,} notes)", row)
        for row in measured.rows
        if row.words != ALL and row.features == TEACHER
    ]
    yield from _compared(measured, groups)
    if not math.isnan(measured.covered):
        share = f"{100 * measured.covered:.0f} %"
        yield f"of the words that stand in one training note only, unlabelled texts have {share}"


def ledger_rows(headroom: Headroom, study_id: str) -> list[dict[str, Any]]:
    """Return the rows of the ledger's table `headroom`."""
    findings = {one.teacher: one for one in headroom.verdicts}
    rows = []
    for row in headroom.measured.rows:
        found = _plain(row) | {"study_id": study_id, "confidence": headroom.measured.confidence}
        is_main = row.layer is None and row.words == ALL and row.features == TEACHER
        if is_main and row == headroom.measured.find(TEACHER, row.model):
            verdict = findings[row.model]
            found |= {
                "finding": verdict.finding,
                "mapping": verdict.mapping(headroom.student_depth),
                "verdict": verdict.sentence,
            }
        rows.append(found)
    return rows


def as_json(headroom: Headroom) -> dict[str, Any]:
    """Return everything as JSON values."""
    measured = headroom.measured
    return {
        "verdicts": [
            {
                "teacher": one.teacher,
                "finding": one.finding,
                "sentence": one.sentence,
                "mapping": one.mapping(headroom.student_depth),
            }
            for one in headroom.verdicts
        ],
        "notes": measured.notes,
        "patients": measured.patients,
        "folds": measured.folds,
        "repeats": measured.repeats,
        "confidence": measured.confidence,
        "rows": [_plain(row) for row in measured.rows],
    }


def _plain(row: Row) -> dict[str, Any]:
    """Return a row's columns; what was not measured is left out."""
    found: dict[str, Any] = {
        "features": row.features,
        "model": row.model or None,
        "layer": row.layer,
        "labels": row.labels,
        "familiarity": row.words,
        "notes": row.notes,
        "measure": "auroc",
    }
    for name, interval in (
        ("value", row.auroc),
        ("over_words", row.over_words),
        ("gain", row.gain),
        ("excess", row.excess),
    ):
        if interval.is_defined:
            found[name] = interval.value
            found[f"{name}_low"], found[f"{name}_high"] = interval.low, interval.high
    return found


def _heading(measured: Measured) -> str:
    whom = f" of {measured.patients:,} patients" if measured.patients < measured.notes else ""
    how = f"{measured.folds} folds, {measured.repeats} times"
    return (
        f"{measured.notes:,} training notes{whom}, {how};"
        f" AUROC [{figure(measured.confidence)} interval]; a teacher's layer is chosen in each fold"
    )


def _main_rows(measured: Measured) -> list[Row]:
    most = max(row.labels for row in measured.rows)
    curve = {row.labels for row in measured.rows if row.labels < most}
    return [row for row in measured.rows if row.words == ALL and row.labels not in curve]


def _table(rows: Sequence[Row]) -> Iterator[str]:
    header = ("features", "alone", "added to the words", "to text and words", "beyond random")
    cells: list[tuple[str, ...]] = [header]
    for row in rows:
        name = (
            f"layer {row.layer}" if row.features == TEACHER and row.layer else LABELS[row.features]
        )
        indent = "  " if row.features == TEACHER and row.layer else ""
        name = f"{indent}{row.model}, {name}" if row.model and not indent else f"{indent}{name}"
        added = (row.over_words, row.gain, row.excess)
        cells.append((name, unsigned(row.auroc), *map(signed, added)))
    yield from _aligned(cells)


def _curve(measured: Measured) -> list[Row]:
    rows = [
        row
        for row in measured.rows
        if row.features == TEACHER and row.words == ALL and row.layer is None
    ]
    return sorted(rows, key=lambda row: row.labels)


def _compared(measured: Measured, rows: Sequence[tuple[str, Row]]) -> Iterator[str]:
    """Yield a line for each teacher's row, beside what text and words say to the same notes."""
    cells: list[tuple[str, ...]] = [("", "text and words", "teacher", "adds", "beyond random")]
    for label, row in rows:
        key = (SAID, row.labels, row.words)
        (said,) = (one for one in measured.rows if (one.features, one.labels, one.words) == key)
        cells.append((label, unsigned(said.auroc), row.model, signed(row.gain), signed(row.excess)))
    yield from _aligned(cells)


def _aligned(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def _count(labels: int) -> str:
    return f"{labels:,} labels"
