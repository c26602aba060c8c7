"""What is made ready before the first trial: models, tokenised notes, and whether they fit."""

import time
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import ray
from ray.util.queue import Empty, Queue

from dsgkd.alignment.coverage import coverage
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.data.texts import read_corpus
from dsgkd.data.world import WorldConfig
from dsgkd.models.hub import depth, load_config, load_tokenizer
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.storage.location import Location
from dsgkd.study.console import Console
from dsgkd.study.preparation.shared_cache import pull, push
from dsgkd.study.preparation.tasks import collect
from dsgkd.training.config import RunConfig
from dsgkd.training.on_the_fly import is_built_here, model_reference
from dsgkd.training.opening import open_notes
from dsgkd.training.pretraining import build


def check_models(models: Sequence[str], cache: Path, world: WorldConfig) -> None:
    """Fail early where a model or a corpus cannot be had.

    Raises:
        InputError: the first that cannot.
    """
    for model in models:
        if model.startswith(CORPUS_PREFIX):
            read_corpus(model.removeprefix(CORPUS_PREFIX))
        elif not is_built_here(model):
            load_config(model_reference(model, cache, world))


def build_models(
    models: Sequence[str],
    cache: Path,
    world: WorldConfig,
    console: Console,
    shared_cache: str = "",
) -> None:
    """Pre-train the models that need it, side by side, one CPU each; those in the cache are kept.

    Args:
        models: all of the study's.
        cache: folder in which they are kept.
        world: the synthetic world of the study's own models.
        console: takes lines for people.
        shared_cache: URI of what machines without a folder in common share.

    Raises:
        InputError: a corpus cannot be used.
    """
    wanted = [model for model in dict.fromkeys(models) if is_built_here(model)]
    if not wanted:
        return
    lines = Queue(actor_options={"num_cpus": 0})
    try:
        tasks = [_build.remote(model, cache, world, lines, shared_cache) for model in wanted]
        collect(tasks, lambda _: _drain(lines, console))
    finally:
        lines.shutdown()
    if shared_cache:
        pull(Location(shared_cache), cache)


@ray.remote(num_cpus=1, max_retries=2)
def _build(model: str, cache: Path, world: WorldConfig, lines: Queue, shared_cache: str) -> None:
    import torch

    torch.set_num_threads(1)
    if shared_cache:
        pull(Location(shared_cache), cache)
    build(model, cache, world, notify=lines.put)
    if shared_cache:
        push(Location(shared_cache), cache)


def _drain(lines: Queue, console: Console) -> None:
    while True:
        try:
            console.print(lines.get_nowait())
        except Empty:
            return


def depths(models: Sequence[str], cache: Path, world: WorldConfig) -> dict[str, int]:
    """Return the number of layers of each model."""
    return {model: depth(load_config(model_reference(model, cache, world))) for model in models}


def prepare_notes(run: RunConfig, cache: Path, console: Console) -> None:
    """Tokenise the notes for a student and one teacher, and say what will be transferred."""
    started = time.perf_counter()
    texts = open_notes(run, cache)
    teacher = run.distillation.teacher
    name = PurePath(teacher).name
    seconds = time.perf_counter() - started
    console.print(f"words for {name}: {coverage(texts, run.distillation.max_transfer_words)}")
    console.print(f"{len(texts):,} notes tokenised for {name} in {seconds:.1f} s")
    if wrong_way_round(
        texts,
        load_tokenizer(model_reference(run.student.model, cache, run.world)).unk_token_id,
        load_tokenizer(model_reference(teacher, cache, run.world)).unk_token_id,
    ):
        console.warn(
            f"{teacher} reads the whole text better and {run.student.model} the words to "
            "transfer: teacher and student may be the wrong way round"
        )


def wrong_way_round(
    texts: EncodedTexts, student_unknown: int | None, teacher_unknown: int | None
) -> bool:
    """Whether the teacher reads the local language better, and the student the words to transfer.

    A model reads better with fewer tokens, an unknown one counting as ten. The local language is
    what remains of the texts without those words.
    """
    spans = texts.alignments[0].words.flat() if texts.alignments else np.empty((0, 5))
    if not len(spans):
        return False
    spans = spans[:, :4]  # student start, student end, teacher start, teacher end
    student_words, teacher_words = (spans[:, 1::2] - spans[:, ::2]).sum(0)
    student_rest = _reading_cost(texts.student.tokens.flat(), student_unknown) - student_words
    teacher_rest = _reading_cost(texts.teachers[0].tokens.flat(), teacher_unknown) - teacher_words
    return bool(teacher_rest < student_rest and student_words < teacher_words)


def _reading_cost(ids: np.ndarray, unknown: int | None) -> float:
    return len(ids) + 10.0 * float((ids == unknown).sum() if unknown is not None else 0)
