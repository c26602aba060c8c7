"""Paths as the user types them, made absolute: workers of a cluster run in another folder."""

import os
from dataclasses import replace

from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.training.config import RunConfig


def absolute(path: str) -> str:
    """Return a local path in full; nothing and a URI stay as they are."""
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))


def absolute_model(reference: str) -> str:
    """Return a reference to models with the corpora that it names in full.

    Only `corpus:PATH` is surely a path: the name of a model may be a folder or a hub's.
    """
    parts = [part.partition(CORPUS_PREFIX) for part in reference.split("+")]
    return "+".join(
        f"{before}{prefix}{absolute(path)}" if prefix else before for before, prefix, path in parts
    )


def absolute_run(run: RunConfig) -> RunConfig:
    """Return a run whose notes, texts and corpora are named in full."""
    transfer = run.transfer
    return replace(
        run,
        data=replace(run.data, path=absolute(run.data.path)),
        transfer=replace(
            transfer,
            unlabelled=tuple(map(absolute, transfer.unlabelled)),
            glossary=absolute(transfer.glossary),
        ),
        student=replace(run.student, model=absolute_model(run.student.model)),
        distillation=replace(run.distillation, teacher=absolute_model(run.distillation.teacher)),
    )
