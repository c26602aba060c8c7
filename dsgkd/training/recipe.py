"""Recipes: chains of runs, each of which starts from the student of the one before.

A link whose settings and inputs are the same in many runs is made once: its student is an artefact,
named by a hash of everything that decides it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from dsgkd.data.sources import SEALED
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.export import save_adapted
from dsgkd.models.fingerprint import fingerprint
from dsgkd.models.projection import save_projection
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import AdaptationConfig, LinkConfig, RunConfig, SelectionConfig
from dsgkd.training.loop import BEST, LAST, EpochResult, restore_best, train
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.opening import OpenRun, open_run, open_table, transfer_sources
from dsgkd.training.prototypes import prototype_corpus
from dsgkd.training.workers import Workers

_PREFIX = "artefact:"
_FORMAT = 1
"""Raised when the code makes another student of the same link."""


@dataclass(frozen=True)
class Link:
    """One link of a recipe."""

    key: str
    """Names the artefact: 32 hexadecimal digits."""
    name: str
    """For people."""
    run: RunConfig
    """What is trained; its student is the model before the link, or the artefact of the one
    before as `artefact:KEY`."""


def links_of(run: RunConfig, cache: Path) -> tuple[Link, ...]:
    """Return the links of a run, in their order.

    Raises:
        InputError: the notes or a model cannot be used.
    """
    found: list[Link] = []
    student = run.student.model
    for link in run.chain:
        own = _run_of(link, run, student)
        key = _key(own, found[-1].key if found else "", cache)
        found.append(Link(key, link.name, own))
        student = f"{_PREFIX}{key}"
    return tuple(found)


def resolved(run: RunConfig, artefacts: Artefacts, cache: Path) -> RunConfig:
    """Return a run whose links are made as one that starts from the last one's student.

    Raises:
        InputError: a link was not made yet.
    """
    links = links_of(run, cache)
    if not links:
        return run
    student = replace(run.student, model=str(_artefact(links[-1].key, artefacts)))
    return replace(run, student=student, adaptation=AdaptationConfig(), links=())


def train_link(
    link: Link,
    artefacts: Artefacts,
    cache: Path,
    store: StoreConfig,
    checkpoints: Checkpoints,
    workers: Workers | None = None,
    known_epochs: int | None = None,
) -> Iterator[EpochResult]:
    """Train one link, yielding after every epoch; its student is an artefact before the last yield.

    Args:
        link: of a recipe; the links before it are made.
        artefacts: where students of links are kept.
        cache: as in `open_run`.
        store: as in `open_run`.
        checkpoints: as in `train`.
        workers: as in `train`.
        known_epochs: as in `train`.

    Raises:
        DivergedError: as `train`.
        InputError: as `open_run` and `train`.
    """
    workers, run = workers or Workers.current(), link.run
    if run.student.model.startswith(_PREFIX):
        before = _artefact(run.student.model.removeprefix(_PREFIX), artefacts)
        run = replace(run, student=replace(run.student, model=str(before)))
    opened = open_run(run, cache, store)
    for result in train(opened, checkpoints, workers, known_epochs):
        if result.finished:
            restore_best(opened, checkpoints)
            workers.on_rank_zero(partial(_keep, opened, artefacts, link.key))
        yield result


def make_links(run: RunConfig, artefacts: Artefacts, cache: Path, store: StoreConfig) -> None:
    """Train every link of a run that is not made yet, one after the other, in this process."""
    for link in links_of(run, cache):
        if artefacts.get(link.key) is None:
            checkpoints = Checkpoints(cache / "links" / link.key)
            for _ in train_link(link, artefacts, cache, store, checkpoints):
                pass
            checkpoints.delete(LAST, BEST)


def _keep(run: OpenRun, artefacts: Artefacts, key: str) -> None:
    """Make an artefact of the student, with its head where the next link can go on with it.

    What its terms have learnt to see the teacher through goes along, for heads that look through
    it.
    """
    projection = run.distiller.projection()

    def write(folder: Path) -> None:
        save_adapted(run.student, run.tokenizer, run.config.student.head, run.label_names, folder)
        if projection is not None:
            save_projection(folder, projection)

    artefacts.ensure(key, write)


def _artefact(key: str, artefacts: Artefacts) -> Path:
    folder = artefacts.get(key)
    if folder is None:
        raise InputError(f"link {key[:8]}", "it was not made yet", "make it first")
    return folder


def _run_of(link: LinkConfig, run: RunConfig, student: str) -> RunConfig:
    return replace(
        run,
        student=replace(run.student, model=student),
        task=link.task,
        distillation=link.distillation,
        transfer=link.transfer,
        optimisation=link.optimisation,
        selection=SelectionConfig(
            objective=link.task.objective,
            patience=link.patience,
            stop_when_stale=(link.task.objective,) if link.patience else (),
        ),
        adaptation=AdaptationConfig(),
        links=(),
        splits=SEALED,
    )


def _key(run: RunConfig, before: str, cache: Path) -> str:
    """Return a hash of a link's settings, its texts, and the weights that it reads."""
    models = [] if before else [run.student.model]
    models += [choice.model for choice in run.distillation.choices]
    notes = open_table(run.data, run.world, cache, SEALED)
    facts = {
        "format": _FORMAT,
        "before": before,
        "models": [fingerprint(model_reference(model, cache, run.world)) for model in models],
        "notes": notes.fingerprint,
        "sources": [source.fingerprint for source in transfer_sources(run, cache).values()],
        "prototypes": [
            corpus and corpus.fingerprint
            for corpus in (
                prototype_corpus(run, choice.model) for choice in run.distillation.choices
            )
        ],
        # Texts and models are named by their content, wherever they lie or are stored.
        "run": asdict(
            replace(
                run,
                data=type(run.data)(),
                student=replace(run.student, model=""),
                distillation=replace(
                    run.distillation, teacher="", prototype_corpus="", teacher_store="auto"
                ),
                transfer=replace(
                    run.transfer, unlabelled=(), unlabelled_text=None, glossary="", mix=""
                ),
            )
        ),
        "mix": run.transfer.mix,
        "shares": [(choice.weight, str(choice.mapping)) for choice in run.distillation.choices],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
