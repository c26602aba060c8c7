"""The teachers' states of the training texts, stored once, before the first trial.

The texts that a store lacks are cut into chunks, one shard each, and read by Ray tasks wherever
the cluster has room. A task that is lost is started again; a pass that is killed goes on with
what is missing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
import ray
import torch

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.distillation.config import TeacherWeights
from dsgkd.distillation.distiller import teacher_request
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.store.populate import chunks, populate_chunk, words_needed
from dsgkd.distillation.store.state_kinds import StateKind, bytes_needed, kinds_of
from dsgkd.distillation.teachers.source import TeacherSource, live_model, open_states, readable
from dsgkd.models.hub import load_config
from dsgkd.models.taps import TapRequest
from dsgkd.storage.location import Location
from dsgkd.study.console import Console, Throttle
from dsgkd.study.preparation.shared_cache import pull
from dsgkd.study.preparation.tasks import collect
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import RunConfig
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.opening import open_transfer_set, teacher_sources, where_to_run


@dataclass(frozen=True)
class StoredTeacherPlan:
    """One teacher whose states a study wants to have stored."""

    run: RunConfig
    """Names the teacher, the texts, and the most words of a text."""
    kinds: tuple[StateKind, ...]
    """Everything that some trial may ask for."""
    cache: Path
    store: StoreConfig
    shared_cache: str = ""

    @property
    def name(self) -> str:
        """The teacher, for people."""
        distillation = self.run.distillation
        random = " with random weights" if distillation.teacher_weights == "random" else ""
        shuffled = " on shuffled words" if distillation.shuffled else ""
        return PurePath(distillation.teacher).name + random + shuffled

    def texts(self) -> EncodedTexts:
        """Return the texts that trials are trained on."""
        return open_transfer_set(self.run, self.cache)

    def words(self, texts: EncodedTexts) -> np.ndarray:
        """Return how many words of each text are needed."""
        return words_needed(texts.alignments[0], self.run.distillation.max_transfer_words)

    def size(self) -> int:
        """Return the bytes it takes."""
        texts = self.texts()
        teacher = self.run.distillation.teacher
        config = load_config(model_reference(teacher, self.cache, self.run.world))
        return bytes_needed(self.kinds, config, self.words(texts), texts.teachers[0].lengths)

    def source(self) -> TeacherSource:
        """Return the teacher as this process would compute it."""
        (source,) = teacher_sources(self.run, self.cache, *where_to_run(self.run))
        return source


def plan(
    run: RunConfig,
    space: SearchSpace,
    teacher: str,
    weights: TeacherWeights,
    depths: Mapping[str, int],
    cache: Path,
    store: StoreConfig,
    shared_cache: str = "",
) -> StoredTeacherPlan:
    """Plan what a study may ever ask of one teacher: every layer that some mapping uses.

    Args:
        run: what trials have in common.
        space: the search space.
        teacher: its name.
        weights: `pretrained` or `random`.
        depths: number of layers of the student and of each teacher, by name.
        cache: folder of the texts.
        store: where teachers are stored.
        shared_cache: URI of what machines without a folder in common share.
    """
    ours, theirs = depths[run.student.model], depths[teacher]
    distillation = replace(
        run.distillation,
        teacher=teacher,
        teacher_weights=weights,
        mapping="uniform",
        alpha=space.alpha[1],
        beta=space.beta[1],
        max_transfer_words=max(space.cs_max_len),
    )
    mappings = map(LayerMapping.parse, space.fitting_mappings(ours, theirs))
    requests = [teacher_request(distillation, one.resolve(ours, theirs)) for one in mappings]
    kinds = tuple(sorted(kinds_of(TapRequest.joined(requests))))
    return StoredTeacherPlan(
        replace(run, distillation=distillation), kinds, cache, store, shared_cache
    )


def store_teacher(
    plan: StoredTeacherPlan, resources: Mapping[str, float], workers: int, console: Console
) -> None:
    """Store what is missing of one teacher, on as many workers as there are.

    Raises:
        InputError: the model cannot be used, or the store cannot be written.
    """
    started = time.perf_counter()
    needs = {"num_cpus": resources["cpu"], "num_gpus": resources.get("gpu", 0), "max_retries": 3}
    (todo,) = collect([_missing.options(**needs).remote(plan, workers)])
    if not todo:
        console.print(f"teacher {plan.name}: stored before")
        return
    done = np.cumsum([0, *map(len, todo)])
    throttled = Throttle(console, 10)

    def follow(count: int) -> None:
        spent = time.perf_counter() - started
        left = spent * (len(todo) - count) / max(count, 1)
        throttled.print(
            f"teacher {plan.name}: {done[count]:,} of {done[-1]:,} texts, {left:.0f} s left"
        )

    tasks = [_populate.options(**needs).remote(plan, rows) for rows in todo]
    collect(tasks, follow)
    seconds = time.perf_counter() - started
    console.print(
        f"teacher {plan.name}: {done[-1]:,} texts read once in {seconds:.1f} s and stored "
        f"({readable(plan.size())})"
    )


@ray.remote
def _missing(plan: StoredTeacherPlan, workers: int) -> list[np.ndarray]:
    """Return the chunks of texts that are to be read; asked where the teacher will compute."""
    if plan.shared_cache:
        pull(Location(plan.shared_cache), plan.cache)
    source, texts = plan.source(), plan.texts()
    words, states = plan.words(texts), open_states(source, plan.store, plan.cache)
    states.reopen()
    for damaged in states.refused:
        states.storage.discard(damaged.path)
    view = texts.teachers[0]
    rows = states.missing(view.keys, words, plan.kinds)
    return chunks(view, rows, words, plan.kinds, source.config, workers)


@ray.remote
def _populate(plan: StoredTeacherPlan, rows: np.ndarray) -> None:
    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources()["CPU"])))
    if plan.shared_cache:
        pull(Location(plan.shared_cache), plan.cache)
    source, texts = plan.source(), plan.texts()
    states = open_states(source, plan.store, plan.cache)
    model, words = live_model(source), plan.words(texts)
    populate_chunk(states, texts.teachers[0], rows, words, plan.kinds, model, source.autocast)
