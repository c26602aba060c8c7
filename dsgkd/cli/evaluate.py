"""Measure a trained student on labelled notes.

Example:
  dsgkd evaluate --model runs/first/model
  dsgkd evaluate --model runs/cbert/model --data notes.csv --text note --label emergency
"""

import json
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute
from dsgkd.configuration import Text, config
from dsgkd.data.config import SPLITS, DataConfig
from dsgkd.errors import InputError
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
    # Deferred: `--help` and a wrong flag need no pandas, and a wrong column no PyTorch.
    from dsgkd.data.notes import read_notes

    # Nothing is written, so the ids of examples are of no use and need no lasting key.
    splits = SPLITS[: SPLITS.index(flags.split_name) + 1]
    data = replace(flags.data, path=absolute(flags.data.path))
    notes = read_notes(data, b"unused", splits=splits)
    from dsgkd.cli.predicting import Classifier

    classifier = Classifier(Path(flags.model))
    card = classifier.card
    if notes.label_names != card.label_names:
        raise InputError(
            notes.name,
            f"classes {', '.join(notes.label_names)}",
            f"the student knows {', '.join(card.label_names)}",
        )
    table = notes.table.to_pandas()
    table = table[table["split"] == flags.split_name]
    probability = classifier.probabilities(table["text"].tolist())
    found = measures(table["label"].to_numpy("int64"), probability, card.threshold)
    if flags.json:
        print(json.dumps({"split": flags.split_name, "notes": len(table), **found}))
        return
    print(f"{notes.name}, {flags.split_name}: {len(table):,} notes")
    for name, value in found.items():
        print(f"  {name:<10} {value:.4f}")
