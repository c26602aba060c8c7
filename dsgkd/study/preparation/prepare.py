"""What is made ready before the first trial: models, tokenised notes, and whether they fit."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from ray.util.queue import Empty, Queue

from dsgkd.alignment.coverage import coverage
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.data.sources import read_corpus
from dsgkd.models.hub import depth, load_config, load_tokenizer
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.models.on_the_fly import build, is_built_here, model_reference
from dsgkd.study.console import Console
from dsgkd.study.preparation.tasks import collect
from dsgkd.training.run import RunConfig, open_notes


def check_models(models: Sequence[str], cache: Path) -> None:
    """Fail early where a model or a corpus cannot be had.

    Raises:
        InputError: the first that cannot.
    """
    for model in models:
        if model.startswith(CORPUS_PREFIX):
            read_corpus(model.removeprefix(CORPUS_PREFIX))
        elif not is_built_here(model):
            load_config(model_reference(model, cache))


def build_models(models: Sequence[str], cache: Path, console: Console) -> None:
    """Pre-train the models that need it, side by side, one CPU each; those in the cache are kept.

    Raises:
        InputError: a corpus cannot be used.
    """
    wanted = [model for model in dict.fromkeys(models) if is_built_here(model)]
    if not wanted:
        return
    lines = Queue(actor_options={"num_cpus": 0})
    try:
        tasks = [_build.remote(model, cache, lines) for model in wanted]
        collect(tasks, lambda _: _drain(lines, console))
    finally:
        lines.shutdown()


@ray.remote(num_cpus=1, max_retries=2)
def _build(model: str, cache: Path, lines: Queue) -> None:
    import torch

    torch.set_num_threads(1)
    build(model, cache, say=lines.put)


def _drain(lines: Queue, console: Console) -> None:
    while True:
        try:
            console.print(lines.get_nowait())
        except Empty:
            return


def depths(models: Sequence[str], cache: Path) -> dict[str, int]:
    """Return the number of layers of each model."""
    return {model: depth(load_config(model_reference(model, cache))) for model in models}


def prepare_notes(run: RunConfig, cache: Path, console: Console) -> None:
    """Tokenise the notes for one pair of student and teacher, and say what will be transferred."""
    started = time.perf_counter()
    notes, _ = open_notes(run, cache)
    teacher = run.distillation.teacher
    seconds = time.perf_counter() - started
    console.print(f"words for {Path(teacher).name}: {coverage(notes, run.distillation.cs_max_len)}")
    console.print(f"{len(notes):,} notes tokenised for {Path(teacher).name} in {seconds:.1f} s")
    if wrong_way_round(
        notes,
        load_tokenizer(model_reference(run.student.model, cache)).unk_token_id,
        load_tokenizer(model_reference(teacher, cache)).unk_token_id,
    ):
        console.warn(
            f"{teacher} reads the whole text better and {run.student.model} the words to "
            "transfer: teacher and student may be the wrong way round"
        )


def wrong_way_round(
    notes: EncodedNotes, student_unknown: int | None, teacher_unknown: int | None
) -> bool:
    """Whether the teacher reads the local language better, and the student the words to transfer.

    A model reads better with fewer tokens, an unknown one counting as ten. The local language is
    what remains of the texts without those words.
    """
    if notes.teacher is None or not len(notes.words.flat()):
        return False
    spans = notes.words.flat()[:, :4]  # student start, student end, teacher start, teacher end
    student_words, teacher_words = (spans[:, 1::2] - spans[:, ::2]).sum(0)
    student_rest = _reading_cost(notes.student.flat(), student_unknown) - student_words
    teacher_rest = _reading_cost(notes.teacher.flat(), teacher_unknown) - teacher_words
    return bool(teacher_rest < student_rest and student_words < teacher_words)


def _reading_cost(ids: np.ndarray, unknown: int | None) -> float:
    return len(ids) + 10.0 * float((ids == unknown).sum() if unknown is not None else 0)
