"""The headroom of a study's teachers, measured by a task before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
import torch

from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.headroom.check import Headroom, check_headroom
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.report import brief
from dsgkd.storage.location import Location
from dsgkd.study.console import Console
from dsgkd.study.preparation.shared_cache import pull
from dsgkd.study.preparation.tasks import collect
from dsgkd.tasks import Classification
from dsgkd.training.config import RunConfig


def print_headroom(
    run: RunConfig,
    teachers: Sequence[str],
    seed: int,
    resources: Mapping[str, float],
    cache: Path,
    store: StoreConfig,
    shared_cache: str,
    console: Console,
) -> Headroom | None:
    """Measure the headroom where trials will run, and print it; None where there is none to tell.

    Args:
        run: what trials have in common.
        teachers: by themselves.
        seed: the study's.
        resources: of one worker.
        cache: folder of the texts and models.
        store: where teachers are stored; what is read here, trials read from there.
        shared_cache: URI of what machines without a folder in common share.
        console: takes lines for people.
    """
    if not isinstance(run.task, Classification):
        return None
    needs = {"num_cpus": resources["cpu"], "num_gpus": resources.get("gpu", 0), "max_retries": 3}
    task = _check.options(**needs).remote(run, teachers, seed, cache, store, shared_cache)
    try:
        found: Headroom = collect([task])[0]
    except InputError as error:  # a study of few notes is one all the same
        console.print(f"no headroom measured: {error}")
        return None
    for line in brief(found):
        console.print(line)
    return found


@ray.remote
def _check(
    run: RunConfig,
    teachers: Sequence[str],
    seed: int,
    cache: Path,
    store: StoreConfig,
    shared_cache: str,
) -> Headroom:
    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources()["CPU"])))
    if shared_cache:
        pull(Location(shared_cache), cache)
    return check_headroom(run, teachers, HeadroomConfig(seed=seed), store, cache)
