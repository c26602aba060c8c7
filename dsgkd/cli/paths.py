"""Paths as the user types them, made absolute: workers of a cluster run in another folder."""

import os
from dataclasses import replace
from pathlib import Path

from dsgkd.data.transfer_set import SYNTHETIC
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.training.config import RunConfig


def absolute(path: str) -> str:
    """Return a local path in full; nothing, a URI and the synthetic texts stay as they are."""
    if not path or "://" in path or path == SYNTHETIC:
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


def absolute_store(store: StoreConfig) -> StoreConfig:
    """Return a store whose folders are named in full."""
    return replace(store, folder=absolute(store.folder), node_folder=absolute(store.node_folder))


def studies_folder(given: str, is_default: bool) -> str:
    """Return the folder of studies in full, or its URI.

    Args:
        given: a folder or a URI.
        is_default: nobody asked for it; a submitted job then takes `dsgkd-runs` in its home.

    Raises:
        InputError: a relative path in a submitted job, whose working directory is a copy that
            goes away.
    """
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if in_job and is_default:
        return str(Path.home() / "dsgkd-runs")
    folder = absolute(given)
    if in_job and folder != os.path.expanduser(given):
        raise InputError("--out", f"'{given}' is relative in a job", "give an absolute path")
    return folder
