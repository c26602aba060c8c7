"""What the commands that train one student have in common."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dsgkd.alignment.coverage import coverage
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.export import StudentCard, save_student
from dsgkd.models.folder import save_model
from dsgkd.models.masked import MaskedStudent
from dsgkd.models.student import encoder_of
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import evaluate_validation
from dsgkd.training.loop import DivergedError, EpochResult, restore_best, train
from dsgkd.training.opening import OpenRun, open_run, open_table
from dsgkd.training.pretraining import build_missing
from dsgkd.training.recipe import make_links, resolved


def check_new(folder: Path, remedy: str = "choose another --out") -> None:
    """Refuse a folder in which something stands.

    Raises:
        InputError: it is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "not an empty folder", remedy)


def prepare(config: RunConfig, cache: Path, store: StoreConfig) -> OpenRun:
    """Open a run, making what it starts from, and say where its teachers' states come from.

    Raises:
        InputError: the notes or a model cannot be used.
    """
    open_table(config.data, config.world, cache, config.splits)  # before anything takes time
    teachers = [choice.model for choice in config.distillation.choices]
    build_missing([config.student.model, *teachers], cache, config.world, print)
    artefacts = Artefacts(cache / "artefacts")
    make_links(config, artefacts, cache, store)
    opened = open_run(resolved(config, artefacts, cache), cache, store)
    for at, teacher in enumerate(opened.teachers):
        print(f"{teachers[at]}: {teacher.why}")
        most = config.distillation.max_transfer_words
        print(f"words for {teachers[at]}: {coverage(opened.texts, most, at)}")
    return opened


def epochs(opened: OpenRun, checkpoints: Checkpoints) -> Iterator[EpochResult]:
    """Train, yielding after every epoch.

    Raises:
        InputError: as `train`, or training diverged.
    """
    try:
        yield from train(opened, checkpoints)
    except DivergedError as error:
        raise InputError("training", str(error), "lower the learning rates") from error


def save_best(opened: OpenRun, checkpoints: Checkpoints, folder: Path) -> None:
    """Save the student of the best epoch in `folder/model`, and say what to do next."""
    restore_best(opened, checkpoints)
    target, student = folder / "model", opened.student
    measured = evaluate_validation(opened).measured
    if "threshold" not in measured:  # no classifier
        model = student.model if isinstance(student, MaskedStudent) else encoder_of(student)
        save_model(target, model, opened.tokenizer)
        print(f"best model: {target}")
        return
    config = opened.config
    card = StudentCard(
        label_names=opened.label_names,
        head=config.student.head,
        max_length=config.max_length,
        threshold=measured.pop("threshold"),
        method="mlkd" if opened.teachers else "plain",
        measures=measured,
        words=config.words,
        max_transfer_words=config.distillation.max_transfer_words,
    )
    save_student(target, student, opened.tokenizer, card)
    print(f"best student: {target}")
    columns = (
        f"--{name}={shlex.quote(value)}"
        for name, value in asdict(config.data).items()
        if name in ("text", "label", "split", "group", "id") and value is not None
    )
    data = [f"--data {shlex.quote(config.data.path)}", *columns] if config.data.path else []
    print(" ".join([f"next: dsgkd evaluate --model {shlex.quote(str(target))}", *data]))
