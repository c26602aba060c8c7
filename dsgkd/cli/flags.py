"""Which flags do commands and studies share, and what do they mean?"""

import argparse
from datetime import datetime
from pathlib import Path
from typing import get_args

from dsgkd.cli.terminal import Parser, parser_of
from dsgkd.cli.terminal import run_command as run_command  # studies have all of it from here
from dsgkd.data.sources import DataConfig
from dsgkd.distillation.distiller import TeacherStore
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX


def add_data_flags(description: str, models: bool) -> Parser:
    """Return a parser with the flags that name the notes and, if wanted, the models."""
    parser = parser_of(description)
    data_flags(parser)
    if models:
        model_flags(parser)
    return parser


def data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the labelled notes."""
    data = parser.add_argument_group("notes")
    data.add_argument(
        "--data",
        default="",
        metavar="PATH",
        help="CSV, Parquet or JSON-lines file, folder of the six CSVs X_train.csv ... y_test.csv, "
        "or a `datasets` folder [the embedded synthetic world]",
    )
    data.add_argument("--text", metavar="COLUMN", help="column of the text [found by name]")
    data.add_argument("--label", metavar="COLUMN", help="column of the label [found by name]")
    data.add_argument(
        "--split",
        metavar="COLUMN",
        help="column of train / validation / test [found by name, else a seeded split; '': ignore]",
    )
    data.add_argument(
        "--group", metavar="COLUMN", help="patient column: no patient in two splits [found by name]"
    )
    data.add_argument("--id", metavar="COLUMN", help="column of unique ids [found by name]")


def model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name student and teachers."""
    models = parser.add_argument_group("models")
    models.add_argument(
        "--student",
        metavar="MODEL",
        help="folder, hub id, or one of kobert, kmbert, mbert, tiny-ko "
        "[tiny-ko for the embedded world, else kobert]",
    )
    models.add_argument(
        "--teacher",
        action="append",
        metavar="MODEL",
        help="folder, hub id, or one of bert, mbert, cbert, roberta, bio_roberta, bio_mbert, "
        "tiny-en-med; repeatable [tiny-en-med for the embedded world, else cbert]",
    )
    models.add_argument(
        "--student-corpus",
        metavar="PATH",
        help="general text from which a small student is pre-trained on the spot",
    )
    models.add_argument(
        "--teacher-corpus",
        action="append",
        metavar="PATH",
        help="domain text from which a small teacher is pre-trained on the spot; repeatable",
    )


def store_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on the stored teacher."""
    store = parser.add_argument_group("stored teacher")
    store.add_argument(
        "--teacher-store",
        choices=get_args(TeacherStore),
        default="auto",
        help="stored: the teacher reads every training text once; live: in every step; "
        "auto: stored where it is worth it and fits the budget [%(default)s]",
    )
    store.add_argument(
        "--store",
        default="",
        metavar="FOLDER",
        help="where teachers are stored, a folder or a URI such as s3://bucket/x [the cache]",
    )
    store.add_argument(
        "--store-node-folder", default="", metavar="FOLDER", help="with a URI: each node's copy"
    )
    store.add_argument(
        "--store-budget-gb",
        type=float,
        default=StoreConfig().budget_gb,
        metavar="GB",
        help="the most that all stored teachers may take [%(default)s]",
    )


def store_config(flags: argparse.Namespace) -> StoreConfig:
    """Return what the flags on the stored teacher say."""
    folder = flags.store
    if folder and "://" not in folder:
        folder = str(Path(folder).expanduser().absolute())
    return StoreConfig(folder, flags.store_node_folder, flags.store_budget_gb)


def integers(text: str) -> tuple[int, ...]:
    """Read numbers separated by commas."""
    return tuple(int(part) for part in text.split(",") if part.strip())


def data_config(flags: argparse.Namespace) -> DataConfig:
    """Return what the data flags say."""
    path = str(Path(flags.data).expanduser().resolve()) if flags.data else ""
    return DataConfig(
        path=path,
        text=flags.text,
        label=flags.label,
        split=flags.split,
        group=flags.group,
        id=flags.id,
    )


def pick_models(flags: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Return the student and the teachers that the flags name.

    Raises:
        InputError: a student is given twice.
    """
    if flags.student and flags.student_corpus:
        raise InputError("--student", "given beside --student-corpus", "give one of the two")
    embedded = not flags.data
    student = _corpus(flags.student_corpus) if flags.student_corpus else flags.student
    teachers = [*(flags.teacher or []), *map(_corpus, flags.teacher_corpus or [])]
    return (
        student or ("tiny-ko" if embedded else "kobert"),
        tuple(dict.fromkeys(teachers)) or (("tiny-en-med",) if embedded else ("cbert",)),
    )


def _corpus(path: str) -> str:
    return CORPUS_PREFIX + str(Path(path).expanduser().resolve())


def default_name(prefix: str) -> str:
    """Return a name that sorts by time."""
    return f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}"
