"""The teachers' states of the training texts, stored once, before the first trial.

The texts that a store lacks are cut into chunks, one shard each, and read by Ray tasks wherever
the cluster has room. A task that is lost is started again; a pass that is killed goes on with
what is missing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray
import torch

from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.distillation.distiller import TeacherWeights
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.store.populate import chunks, populate_chunk, words_needed
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.store.state_kinds import StateKind
from dsgkd.distillation.teachers.source import live_model, open_states, readable, teacher_bytes
from dsgkd.models.hub import load_config
from dsgkd.models.on_the_fly import model_reference
from dsgkd.study.console import Console, Throttle
from dsgkd.study.preparation.tasks import collect
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.run import RunConfig, open_notes, teacher_source, where_to_run


@dataclass(frozen=True)
class StoredTeacherPlan:
    """One teacher whose states a study wants to have stored."""

    run: RunConfig
    """Names the teacher, the notes, and the most words of a text."""
    kinds: tuple[StateKind, ...]
    """Everything that some trial may ask for."""
    cache: Path
    store: StoreConfig

    @property
    def name(self) -> str:
        """The teacher, for people."""
        distillation = self.run.distillation
        random = " with random weights" if distillation.teacher_weights == "random" else ""
        return Path(distillation.teacher).name + random

    def notes(self) -> EncodedNotes:
        """Return the training texts."""
        return open_notes(self.run, self.cache)[0].split("train")

    def words(self, notes: EncodedNotes) -> np.ndarray:
        """Return how many words of each text are needed."""
        return words_needed(notes, self.run.distillation.cs_max_len)

    def size(self) -> int:
        """Return the bytes it takes."""
        notes = self.notes()
        config = load_config(model_reference(self.run.distillation.teacher, self.cache))
        return teacher_bytes(config, notes, self.words(notes), self.kinds)


def plan(
    run: RunConfig,
    space: SearchSpace,
    teacher: str,
    weights: TeacherWeights,
    depths: Mapping[str, int],
    cache: Path,
    store: StoreConfig,
) -> StoredTeacherPlan:
    """Say what a study may ever ask of one teacher: every layer that some mapping uses.

    Args:
        run: what trials have in common.
        space: the search space.
        teacher: its name.
        weights: `pretrained` or `random`.
        depths: number of layers of the student and of each teacher, by name.
        cache: folder of the notes.
        store: where teachers are stored.
    """
    ours, theirs = depths[run.student.model], depths[teacher]
    pairs = {
        pair
        for mapping in space.fitting_mappings(ours, theirs)
        for pair in LayerMapping.parse(mapping).resolve(ours, theirs)
    }
    parts = {StateKind("hidden", layer) for _, layer in pairs}
    if space.beta[1] > 0:
        rows = "positions" if run.distillation.form == "paper" else "words"
        parts |= {StateKind(rows, layer) for own, layer in pairs if own > 0}  # type: ignore[arg-type]
    distillation = replace(
        run.distillation,
        teacher=teacher,
        teacher_weights=weights,
        cs_max_len=max(space.cs_max_len),
    )
    return StoredTeacherPlan(
        replace(run, distillation=distillation), tuple(sorted(parts)), cache, store
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
    source = teacher_source(plan.run, plan.cache, *where_to_run(plan.run))
    notes = plan.notes()
    words, states = plan.words(notes), open_states(source, plan.store, plan.cache)
    states.reopen()
    for damaged in states.refused:
        states.storage.discard(damaged.path)
    rows = states.missing(notes.keys, words, plan.kinds)
    return chunks(notes, rows, words, plan.kinds, source.config, workers)


@ray.remote
def _populate(plan: StoredTeacherPlan, rows: np.ndarray) -> None:
    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources()["CPU"])))
    source = teacher_source(plan.run, plan.cache, *where_to_run(plan.run))
    notes = plan.notes()
    states = open_states(source, plan.store, plan.cache)
    model = live_model(source)
    populate_chunk(states, notes, rows, plan.words(notes), plan.kinds, model, source.autocast)
