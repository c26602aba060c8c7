"""Pre-train a masked language model on text, from scratch or continued.

From scratch, a WordPiece tokenizer is trained first. With --init an existing model is continued
on the text (the reference's `is_pt`). An interrupted run goes on when called again.

Example:
  dsgkd pretrain --corpus clinical_english/ --out models/en-clinical
  dsgkd pretrain --corpus notes.csv --init kykim/bert-kor-base --lr 5e-5 --out models/kobert-notes
"""

from pathlib import Path

from dsgkd.cli.fields import add_field_flags, override
from dsgkd.cli.flags import parser_of
from dsgkd.data.sources import read_corpus
from dsgkd.errors import InputError
from dsgkd.models.pretraining import PretrainingConfig, pretrain


def run(arguments: list[str]) -> None:
    """Run `dsgkd pretrain`."""
    parser = parser_of(__doc__ or "", "dsgkd pretrain")
    parser.add_argument(
        "--corpus",
        required=True,
        metavar="PATH",
        help="Parquet, CSV, JSON-lines or .txt file, or a folder of such; column `text`",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the model's folder")
    add_field_flags(parser, PretrainingConfig())
    flags = parser.parse_args(arguments)

    folder = Path(flags.out).expanduser().absolute()
    if (folder / "config.json").exists():
        raise InputError(str(folder), "a model stands here", "choose another --out")
    pretrain(read_corpus(flags.corpus), override(PretrainingConfig(), flags), folder, print)
    print(f"model: {folder}")
