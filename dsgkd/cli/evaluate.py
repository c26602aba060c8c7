"""Measure a trained student on labelled notes.

Example:
  dsgkd evaluate --model runs/first/model
  dsgkd evaluate --model runs/cbert/model --data notes.csv --text note --label emergency
"""

import json
from pathlib import Path

import numpy as np

from dsgkd.cli.flags import add_data_flags, data_config
from dsgkd.cli.predicting import class_probabilities
from dsgkd.data.sources import SPLITS, read_notes
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.student import load_student
from dsgkd.tasks.measures import measures


def run(arguments: list[str]) -> None:
    """Run `dsgkd evaluate`."""
    parser = add_data_flags(__doc__ or "", models=False)
    parser.prog = "dsgkd evaluate"
    parser.add_argument("--model", required=True, metavar="FOLDER", help="a trained student")
    parser.add_argument(
        "--split-name", choices=SPLITS, default="test", help="notes to measure on [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    flags = parser.parse_args(arguments)

    student, tokenizer, card = load_student(Path(flags.model), attention_for("cpu"))
    # Nothing is written, so the ids of examples are of no use and need no lasting key.
    splits = SPLITS[: SPLITS.index(flags.split_name) + 1]
    notes = read_notes(data_config(flags), b"unused", splits=splits)
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
