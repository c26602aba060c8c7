"""Pre-train a masked language model on text, from scratch or continued.

From scratch, a WordPiece tokenizer is trained first. With --init an existing model is continued
on the text (the reference's `is_pt`). An interrupted run goes on when called again.

Example:
  dsgkd pretrain --corpus clinical_english/ --out models/en-clinical
  dsgkd pretrain --corpus notes.csv --init kykim/bert-kor-base --lr 5e-5 --out models/kobert-notes
"""

from dataclasses import field
from pathlib import Path

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute
from dsgkd.configuration import Text, config
from dsgkd.errors import InputError
from dsgkd.training.pretraining_config import PretrainingConfig


@config
class Pretrain:
    """What `dsgkd pretrain` is asked."""

    corpus: Text
    """Parquet, CSV, JSON-lines or .txt file, or a folder of such; column `text`."""
    out: Text
    """The model's folder."""
    run: PretrainingConfig = field(default_factory=PretrainingConfig)


def run(arguments: list[str]) -> None:
    """Run `dsgkd pretrain`."""
    flags = parse(Pretrain, arguments, "dsgkd pretrain", __doc__ or "")
    folder = Path(absolute(flags.out))
    if (folder / "config.json").exists():
        raise InputError(str(folder), "a model stands here", "choose another --out")
    # Deferred: `--help` and a wrong flag must not wait for PyTorch.
    from dsgkd.data.texts import read_corpus
    from dsgkd.training.pretraining import pretrain

    pretrain(read_corpus(absolute(flags.corpus)), flags.run, folder, print)
    print(f"model: {folder}")
