"""Paths as the user types them, made absolute: workers of a cluster run in another folder."""

import os
from dataclasses import replace
from pathlib import Path

from dsgkd.data.transfer_set import SYNTHETIC
from dsgkd.distillation.config import OWN
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.models.names import CORPUS_PREFIX, HUB_MODELS, TINY_MODELS
from dsgkd.study.config import ConfirmationConfig
from dsgkd.training.config import RunConfig


def absolute(path: str) -> str:
    """Return a local path in full; nothing and a URI stay as they are."""
    if not path or "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))


def absolute_model(reference: str) -> str:
    """Return a model, or teachers such as `0.7*a+0.3*b`, with folders and corpora named in full.

    What is no folder here is the name of a model.
    """
    whole = os.path.exists(os.path.expanduser(reference.removeprefix(CORPUS_PREFIX)))
    found = []
    for part in [reference] if whole else reference.split("+"):  # a path may hold a plus sign
        weight, star, name = part.rpartition("*")
        found.append(f"{weight}{star}{_absolute_part(name.strip())}")
    return "+".join(found)


def _absolute_part(name: str) -> str:
    if name.startswith(CORPUS_PREFIX):
        return CORPUS_PREFIX + absolute(name.removeprefix(CORPUS_PREFIX))
    is_folder = os.path.isdir(os.path.expanduser(name))
    return absolute(name) if is_folder and name not in {*HUB_MODELS, *TINY_MODELS} else name


def _absolute_text(path: str) -> str:
    return path if path == SYNTHETIC else absolute(path)


def _absolute_corpus(path: str) -> str:
    return path if path == OWN else absolute(path)


def absolute_run(run: RunConfig) -> RunConfig:
    """Return a run whose notes, texts and corpora are named in full."""
    transfer = run.transfer
    return replace(
        run,
        data=replace(run.data, path=absolute(run.data.path)),
        transfer=replace(
            transfer,
            unlabelled=tuple(map(_absolute_text, transfer.unlabelled)),
            glossary=_absolute_text(transfer.glossary),
        ),
        student=replace(run.student, model=absolute_model(run.student.model)),
        distillation=replace(
            run.distillation,
            teacher=absolute_model(run.distillation.teacher),
            prototype_corpus=_absolute_corpus(run.distillation.prototype_corpus),
        ),
    )


def absolute_controls(confirmation: ConfirmationConfig) -> ConfirmationConfig:
    """Return a confirmation whose wrong-domain teacher is named in full."""
    controls = (control.partition("=") for control in confirmation.controls)
    return replace(
        confirmation,
        controls=tuple(f"{kind}{equals}{absolute_model(name)}" for kind, equals, name in controls),
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
