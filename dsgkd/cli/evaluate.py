"""Measure a trained student on labelled notes.

Example:
  dsgkd evaluate --model runs/first/model
  dsgkd evaluate --model runs/cbert/model --data notes.csv --text note --label emergency
"""

import json
from dataclasses import field
from pathlib import Path
from typing import Literal

import numpy as np

from dsgkd.cli.flags import parse
from dsgkd.cli.predicting import class_probabilities
from dsgkd.configuration import Text, config
from dsgkd.data.sources import SPLITS, DataConfig, read_notes
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.student import load_student
from dsgkd.tasks.measures import measures


@config
class Evaluate:
    """What `dsgkd evaluate` is asked."""

    model: Text
    """Folder of a trained student."""
    data: DataConfig = field(default_factory=DataConfig)
    split_name: Literal["train", "validation", "test"] = "test"
    """The notes to measure on."""
    json: bool = False
    """Print one line of JSON."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd evaluate`."""
    flags = parse(Evaluate, arguments, "dsgkd evaluate", __doc__ or "")

    student, tokenizer, card = load_student(Path(flags.model), attention_for("cpu"))
    # Nothing is written, so the ids of examples are of no use and need no lasting key.
    splits = SPLITS[: SPLITS.index(flags.split_name) + 1]
    notes = read_notes(flags.data, b"unused", splits=splits)
    if notes.label_names != card.label_names:
        raise InputError(
            notes.name,
            f"classes {', '.join(notes.label_names)}",
            f"the student knows {', '.join(card.label_names)}",
        )
    table = notes.table.to_pandas()
    table = table[table["split"] == flags.split_name]
    probability = class_probabilities(student, tokenizer, table["text"].tolist(), card.max_length)
    found = measures(table["label"].to_numpy(np.int64), probability, card.threshold)
    if flags.json:
        print(json.dumps({"split": flags.split_name, "notes": len(table), **found}))
        return
    print(f"{notes.name}, {flags.split_name}: {len(table):,} notes")
    for name, value in found.items():
        print(f"  {name:<10} {value:.4f}")
