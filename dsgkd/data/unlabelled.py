"""Texts without labels, from which a student learns beside its labelled notes."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dsgkd.data._files import TABLES, read_columns, read_lines
from dsgkd.data._rows import TEXT_COLUMNS, text_cells
from dsgkd.data.identity import content_hash, keyed, text_hash
from dsgkd.data.notes import Notes
from dsgkd.data.texts import corpus_cells
from dsgkd.data.transfer_set import SYNTHETIC
from dsgkd.data.world import WorldConfig, glossary, unlabelled_notes
from dsgkd.errors import InputError

_TERM_COLUMNS = ("term", "terms", "word", *TEXT_COLUMNS)
_LONGEST_TERM = 200
"""Characters; a file of notes is no glossary, and only `read_unlabelled` checks it for leaks."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextSource:
    """Texts without labels from one place, all different."""

    table: pa.Table = field(repr=False)
    """Columns as of `Notes.table`: example_id string (keyed hash), group_id string (null), split
    string ("train"), label int64 (-1), text string."""
    fingerprint: str
    """SHA-256 of the texts, in their order."""
    name: str
    """Short name for messages."""
    counts: Mapping[str, int]
    """Number of rows read; `blank`, `repeated` and `held_out` ones, which were dropped; and
    `in_training` ones, which were not, although the text is in the training split too."""

    @classmethod
    def joined(cls, parts: Sequence["TextSource"]) -> "TextSource":
        """Return several sources as one."""
        if len(parts) == 1:
            return parts[0]
        counts = sum((Counter(part.counts) for part in parts), Counter())
        return cls(
            pa.concat_tables([part.table for part in parts]).combine_chunks(),
            content_hash([part.fingerprint for part in parts]),
            ", ".join(part.name for part in parts),
            dict(counts),
        )


def read_unlabelled(
    paths: Sequence[str],
    text: str | None,
    notes: Notes,
    id_key: bytes,
    world: WorldConfig = WorldConfig(),  # noqa: B008
) -> list[TextSource]:
    """Read texts without labels, of which none is in validation or test.

    A text is the same as another one where both are equal in Unicode's NFKC but for white space.
    Texts that are in validation or test, open or closed, are dropped; so are those that repeat an
    earlier one, of this file or of one before it. Their number is logged, a line for each path.

    Args:
        paths: files or folders, each read as `read_corpus` does, or `SYNTHETIC`.
        text: column of the texts; None: found by name.
        notes: the labelled notes, read with `held_out`.
        id_key: the secret that they were read with.
        world: the synthetic world.

    Returns:
        One source for each path.

    Raises:
        InputError: something cannot be used; one line, without any text.
        ValueError: the notes were read without `held_out`.
    """
    if notes.held_out is None:
        raise ValueError("read the notes with held_out=True")
    pairs = zip(notes.table["text"].to_pylist(), notes.table["split"].to_pylist())
    training = {text_hash(id_key, note) for note, split in pairs if split == "train"}
    seen: set[str] = set()
    sources = []
    for path in paths:
        if path == SYNTHETIC:
            name, cells = "synthetic world", list[str | None](unlabelled_notes(world))
        else:
            name, cells = Path(path).name, corpus_cells(path, text)
        sources.append(_source(cells, name, id_key, seen, notes.held_out, training))
    return sources


def read_glossary(
    path: str,
    id_key: bytes,
    world: WorldConfig = WorldConfig(),  # noqa: B008
) -> TextSource:
    """Read a glossary as a source of short texts: the terms of a domain.

    Of CSV, TSV, Parquet and JSON-lines files the column `term` is read, or else one that a text
    column may be called; of any other file every line but those that begin with `#`.

    Args:
        path: the file, or `SYNTHETIC`.
        id_key: secret that keys the example ids.
        world: the synthetic world.

    Raises:
        InputError: there is no term, or something cannot be used, such as a term of more than 200
            characters.
    """
    file = Path(path)
    if path == SYNTHETIC:
        return _source(glossary(world), "synthetic world", id_key, set())
    if file.suffix.lower() in TABLES:
        columns = read_columns(file)
        cells = text_cells(columns, columns.require(None, _TERM_COLUMNS, "term"))
    else:
        lines = map(str.strip, read_lines(file))
        cells = [line for line in lines if line and not line.startswith("#")]
    long = sum(len(cell or "") > _LONGEST_TERM for cell in cells)
    if long:
        what = f"{long} of {len(cells)} terms have more than {_LONGEST_TERM} characters"
        raise InputError(path, what, "give one term a line, and notes with --unlabelled")
    return _source(cells, file.name, id_key, set())


def _source(
    cells: Iterable[str | None],
    name: str,
    id_key: bytes,
    seen: set[str],
    held_out: Set[str] = frozenset(),
    training: Set[str] = frozenset(),
) -> TextSource:
    """Keep the texts that are new; `seen` holds the hashes of those before, and these are added."""
    counts = Counter(dict.fromkeys(("read", "blank", "repeated", "held_out", "in_training"), 0))
    texts = []
    for cell in cells:
        counts["read"] += 1
        if not cell or not cell.strip():
            counts["blank"] += 1
            continue
        hashed = text_hash(id_key, cell)
        if hashed in held_out:
            counts["held_out"] += 1
        elif hashed in seen:
            counts["repeated"] += 1
        else:
            seen.add(hashed)
            counts["in_training"] += hashed in training
            texts.append(cell)
    if counts["blank"] + counts["repeated"] + counts["held_out"] + counts["in_training"]:
        _log.warning(
            "%s: %d of %d texts without labels are used; dropped: %d blank, %d repeated, %d that "
            "are in validation or test; %d are in training, too, and stay",
            *(name, len(texts), *counts.values()),
        )
    if not texts:
        what = f"none of {counts['read']} texts can be used ({counts['held_out']} are in "
        what += f"validation or test, {counts['repeated']} repeated, {counts['blank']} blank)"
        raise InputError(name, what, "give other texts, or leave it out")
    ids = [keyed(id_key, json.dumps([text])) for text in texts]
    table = pa.table(
        {
            "example_id": pa.array(ids, pa.string()),
            "group_id": pa.nulls(len(texts), pa.string()),
            "split": pa.array(["train"] * len(texts), pa.string()),
            "label": pa.array([-1] * len(texts), pa.int64()),
            "text": pa.array(texts, pa.string()),
        }
    )
    return TextSource(table, content_hash(texts), name, dict(counts))
