"""Classify notes with a trained student.

Reads CSV, Parquet or JSON lines, or `-` for standard input (CSV with a header, or one text a
line). Writes the row number, the id if there is one, the class and the probability of each class,
never the text: as CSV to standard output, or as CSV or Parquet to --out.

Example:
  dsgkd predict --model runs/first/model notes.csv --out predictions.parquet
  echo "상기 환아 3 times vomiting" | dsgkd predict --model runs/first/model -
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dsgkd.cli.flags import parse
from dsgkd.configuration import Column, Text, config
from dsgkd.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@config
class Predict:
    """What `dsgkd predict` is asked."""

    input: Annotated[Text, tyro.conf.Positional]
    """File of notes, or - for standard input."""
    model: Text
    """Folder of a trained student."""
    text: Column | None = None
    """Column of the text; none: found by name."""
    out: Text | None = None
    """A file that ends in .csv or .parquet; none: standard output, as CSV."""

    def __post_init__(self) -> None:
        if self.out and Path(self.out).suffix not in (".csv", ".parquet"):
            raise InputError(self.out, "neither .csv nor .parquet", "choose one of the endings")


def run(arguments: list[str]) -> None:
    """Run `dsgkd predict`."""
    flags = parse(Predict, arguments, "dsgkd predict", __doc__ or "")
    # Deferred: `--help` and a wrong flag need no pandas, and a wrong column no PyTorch.
    import pandas as pd

    from dsgkd.data.texts import read_texts

    texts = read_texts(flags.input, flags.text).to_pandas()
    from dsgkd.cli.predicting import Classifier

    classifier = Classifier(Path(flags.model))
    card, probability = classifier.card, classifier.probabilities(texts["text"].tolist())
    if len(card.label_names) == 2:
        chosen = (probability[:, 1] >= card.threshold).astype(int)
    else:
        chosen = probability.argmax(1)
    frame = pd.DataFrame({"row": texts["row"]})
    if texts["id"].notna().any():
        frame["id"] = texts["id"]
    frame["class"] = [card.label_names[index] for index in chosen]
    for index, name in enumerate(card.label_names):
        frame[f"probability {name}"] = probability[:, index]
    _write(frame, flags.out)


def _write(frame: "pd.DataFrame", path: str | None) -> None:
    try:
        if path is None:
            frame.to_csv(sys.stdout, index=False, float_format="%.6f")
        elif path.endswith(".parquet"):
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False, float_format="%.6f")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            str(path), error.strerror or "not writable", "choose another --out"
        ) from error
