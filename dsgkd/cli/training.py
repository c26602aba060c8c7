"""What do commands that train one student have in common?"""

from collections.abc import Iterator
from pathlib import Path

from dsgkd.alignment.coverage import coverage
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.on_the_fly import build_missing
from dsgkd.models.student import StudentCard, save_student
from dsgkd.tasks.measures import measures
from dsgkd.training.evaluation import predict, validation_threshold
from dsgkd.training.loop import DivergedError, EpochResult, restore_best, train
from dsgkd.training.run import OpenRun, RunConfig, open_run, open_table


def check_new(folder: Path, remedy: str = "choose another --out") -> None:
    """Refuse a folder in which something stands.

    Raises:
        InputError: it is not an empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "not an empty folder", remedy)


def prepare(config: RunConfig, cache: Path, store: StoreConfig) -> OpenRun:
    """Open a run, pre-training what must be, and say which teacher answers and how much.

    Raises:
        InputError: the notes or a model cannot be used.
    """
    open_table(config.data, config.world, cache, config.splits)  # before anything takes time
    models = [config.student.model, config.distillation.teacher]
    build_missing([model for model in models if model], cache, print)
    opened = open_run(config, cache, store)
    if opened.teacher:
        print(opened.teacher.why)
        print(f"words: {coverage(opened.notes, config.distillation.cs_max_len)}")
    return opened


def epochs(opened: OpenRun, folder: Path) -> Iterator[EpochResult]:
    """Train, yielding after every epoch.

    Raises:
        InputError: as `train`, or training diverged.
    """
    try:
        yield from train(opened, folder)
    except DivergedError as error:
        raise InputError("training", str(error), "lower the learning rates") from error


def save_best(opened: OpenRun, folder: Path) -> None:
    """Save the student of the best epoch in `folder/model`, and say what to do next."""
    restore_best(opened, folder)
    validation = opened.notes.split("validation")
    probability = predict(opened, validation)
    threshold = validation_threshold(opened, validation.labels, probability)
    card = StudentCard(
        opened.label_names,
        opened.config.student.head,
        opened.config.max_length,
        threshold,
        "mlkd" if opened.teacher else "plain",
        measures(validation.labels, probability, threshold),
    )
    save_student(folder / "model", opened.distiller.student, opened.tokenizer, card)
    print(f"best student: {folder / 'model'}")
    print(f"next: dsgkd evaluate --model {folder / 'model'} --split-name test")
