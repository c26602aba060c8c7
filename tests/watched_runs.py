"""Runs that are watched, cut off and compared."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsgkd.alignment.batch import Batch
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training import loop
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import EpochResult, train
from dsgkd.training.opening import OpenRun, open_run


def weights(run: OpenRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.distiller.state_dict().items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def facts(results: list[EpochResult]) -> list[dict[str, Any]]:
    """What the epochs brought, without the time they took."""
    return [
        replace(r, seconds=0.0, evaluation_seconds=0.0, examples_per_second=0.0).__dict__
        for r in results
    ]


def watch(monkeypatch: pytest.MonkeyPatch, see: Callable[[Batch], None]) -> list[int]:
    """Show every training batch to `see` before its step; return where each began."""
    starts: list[int] = []
    original = loop.training_batches

    def batches(run: OpenRun, sampler: Any, first: int, *args: Any) -> Iterator[Batch]:
        starts.append(first)
        for batch in original(run, sampler, first, *args):
            see(batch)
            yield batch

    monkeypatch.setattr(loop, "training_batches", batches)
    return starts


def disturb() -> None:
    """Draw from every generator, as another run in the same process would."""
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)


def trained(config: RunConfig, cache: Path, folder: Path) -> tuple[OpenRun, list[EpochResult]]:
    """Train a run, going on from whatever `folder` has of it."""
    run = open_run(config, cache)
    return run, list(train(run, Checkpoints(folder)))


def cut(config: RunConfig, cache: Path, folder: Path, step: int) -> list[EpochResult]:
    """Train until the process dies of the batch of a step, counted from 0; return what it said."""
    seen, said = 0, []

    def die(_: Batch) -> None:
        nonlocal seen
        seen += 1
        if seen == step + 1:
            raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, die)
        with pytest.raises(MemoryError):
            said.extend(train(open_run(config, cache), Checkpoints(folder)))
    disturb()
    return said


def assert_resumes(config: RunConfig, cache: Path, folder: Path, steps: list[int]) -> None:
    """A run that is cut off at any of these steps ends as one that is not, to the bit."""
    kept = replace(config, optimisation=replace(config.optimisation, checkpoint_steps=2))
    whole, expected = trained(kept, cache, folder / "whole")
    for step in steps:
        cut(kept, cache, folder / f"cut-{step}", step)
        run = open_run(kept, cache)
        results = list(train(run, Checkpoints(folder / f"cut-{step}"), known_epochs=0))
        assert facts(results) == facts(expected)
        assert_same_weights(weights(run), weights(whole))
