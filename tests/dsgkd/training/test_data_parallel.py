"""Two processes on gloo must do what one does. They are started once, for all the scenarios."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from dsgkd.alignment.batch import Batch
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import Checkpoints, load_state, save_state
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.tasks.nothing import NoTask
from dsgkd.training import loop
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import LAST, DivergedError, EpochResult, train
from dsgkd.training.opening import OpenRun, open_run

pytestmark = pytest.mark.slow

Scenario = Callable[[RunConfig, Path, Path], None]


def outcome(config: RunConfig, cache: Path, folder: Path) -> None:
    """Train, and write down what each worker saw and what its weights are at the end."""
    run = open_run(config, cache)
    results = [vars(result) for result in train(run, Checkpoints(folder))]
    rank = dist.get_rank() if dist.is_initialized() else 0
    save_state(folder / f"seen-{rank}", {"results": results, **run.distiller.state_dict()})


def interrupted(config: RunConfig, cache: Path, folder: Path) -> None:
    """Die at the fifth batch of the second epoch, and go on in the same processes."""
    original, seen = loop.training_batches, 0

    def batches(*args: Any, **kwargs: Any) -> Iterator[Batch]:
        nonlocal seen
        for batch in original(*args, **kwargs):
            seen += 1
            if seen == 6 + 5:
                raise MemoryError
            yield batch

    loop.training_batches = batches
    with pytest.raises(MemoryError):
        list(train(open_run(config, cache), Checkpoints(folder)))
    loop.training_batches = original
    outcome(config, cache, folder)


def full_disk(config: RunConfig, cache: Path, folder: Path) -> None:
    """Only the first worker writes; the others must not wait for it for ever."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    with pytest.raises(InputError):
        list(train(open_run(config, cache), Checkpoints(folder)))


def diverging(config: RunConfig, cache: Path, folder: Path) -> None:
    original = loop.new_optimizer

    def wild(run: OpenRun) -> torch.optim.AdamW:
        optimizer = original(run)
        for group in optimizer.param_groups:
            group["lr"] = 1e36
        return optimizer

    loop.new_optimizer = wild
    still = replace(config, optimisation=replace(config.optimisation, warmup_share=0.0))
    with pytest.raises(DivergedError):
        list(train(open_run(still, cache), Checkpoints(folder)))
    loop.new_optimizer = original


SCENARIOS: dict[str, tuple[str, Scenario]] = {
    "outcome": ("distilled", outcome),
    "interrupted": ("distilled", interrupted),
    "full disk": ("distilled", full_disk),
    "diverging": ("distilled", diverging),
    "mixed sources": ("mixed", outcome),
    "mixed sources, interrupted": ("mixed", interrupted),
    "terms alone": ("alone", outcome),
    "relative weights": ("relative", outcome),
    "relative weights, interrupted": ("relative", interrupted),
    "masked": ("masked", outcome),
    "masked, interrupted": ("masked", interrupted),
}
"""Name -> which run, and what happens to it."""
COMPARABLE = [
    "outcome",
    "interrupted",
    "mixed sources",
    "mixed sources, interrupted",
    "terms alone",
    "relative weights",
]
"""Those in which one process does the same; with masks, it draws others."""


def work(rank: int, configs: dict[str, RunConfig], cache: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    for name, (config, scenario) in SCENARIOS.items():
        scenario(configs[config], cache, folder / name)
        dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def configs(
    make_config: Callable[..., RunConfig], transfer: TransferConfig
) -> dict[str, RunConfig]:
    """Distilled: the last of its six batches has one note, so one worker has none."""
    terms = {"alpha": 1.0, "beta": 0.5}
    # Where a gradient is all rounding (the bias of an attention key), Adam's step is its sign;
    # a large epsilon keeps such steps small, so that results are comparable at all.
    steps = {"adam_epsilon": 1e-3, "evaluation_batch_size": 4, "checkpoint_steps": 4}
    fewer = steps | {"epochs": 2, "batch_size": 24}
    loss = {"objective": "loss", "stop_when_stale": ()}
    return {
        "distilled": make_config("still-student", "teacher", terms, steps),
        "relative": make_config(
            "still-student", "teacher", terms | {"weights": "relative"}, steps | {"clip": "group"}
        ),
        "mixed": make_config("still-student", "teacher+roberta", terms, fewer, transfer=transfer),
        "alone": make_config(
            "still-student", "teacher", terms, fewer, loss, task=NoTask(), transfer=transfer
        ),
        "masked": make_config(
            "student", "teacher", {}, fewer, loss, task=MaskedLanguageModel(), transfer=transfer
        ),
    }


@pytest.fixture(scope="module")
def alone(
    configs: dict[str, RunConfig], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for name in COMPARABLE:
        config, scenario = SCENARIOS[name]
        scenario(configs[config], cache, folder / name)
    return folder


@pytest.fixture(scope="module")
def together(
    configs: dict[str, RunConfig], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.set_forkserver_preload(["dsgkd.training.loop"])
    context = torch.multiprocessing.start_processes(
        work, (configs, cache, folder), nprocs=2, start_method="forkserver", join=False
    )
    try:
        for _ in range(180):
            if context.join(timeout=1):
                return folder
        pytest.fail("the workers wait for each other")
    finally:
        for process in context.processes:
            process.kill()


def read(folder: Path, rank: int) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    state = load_state(folder / f"seen-{rank}")
    return state.pop("results"), state


def compared(result: dict[str, Any]) -> dict[str, float]:
    """Everything in a result that has to be the same on any number of workers."""
    timeless = {k: v for k, v in result.items() if "second" not in k}
    timeless["stuck"] = {None: -1}.get(timeless["stuck"], timeless["stuck"])
    for part in ("weighted", "raw", "share", "validation"):
        timeless |= {f"{part} {name}": value for name, value in timeless.pop(part).items()}
    return timeless


@pytest.mark.parametrize("scenario", COMPARABLE)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_workers_reach_the_losses_measures_and_weights_of_one(
    alone: Path, together: Path, scenario: str, rank: int
) -> None:
    expected, expected_weights = read(alone / scenario, 0)
    results, weights = read(together / scenario, rank)

    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert compared(result) == pytest.approx(compared(wanted), rel=1e-4, abs=1e-6)
    for name, weight in expected_weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=2e-5, msg=name)


def test_the_terms_that_are_compared_are_not_zero(alone: Path) -> None:
    results, weights = read(alone / "outcome", 0)

    assert all(value > 0 for value in results[0]["weighted"].values())
    assert results[0]["weighted"] != results[-1]["weighted"]
    assert any("projections" in name for name in weights)


@pytest.mark.parametrize("run", ["outcome", "relative weights", "mixed sources", "masked"])
def test_an_interruption_changes_nothing_on_two_workers(together: Path, run: str) -> None:
    cut = {"outcome": "interrupted"}.get(run, f"{run}, interrupted")
    results, weights = read(together / run, 1)
    resumed, resumed_weights = read(together / cut, 1)

    assert [compared(r) for r in resumed] == [compared(r) for r in results[1:]]
    assert all(torch.equal(resumed_weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    "run", ["outcome", "relative weights", "mixed sources", "terms alone", "masked"]
)
def test_both_workers_have_the_same_results_and_weights(together: Path, run: str) -> None:
    (told, first), (heard, second) = (read(together / run, rank) for rank in (0, 1))

    assert [compared(r) for r in told] == [compared(r) for r in heard]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_one_worker_writes_checkpoints(together: Path) -> None:
    files = {file.name for file in (together / "outcome").iterdir()}
    assert files == {"best.safetensors", LAST, "seen-0", "seen-1"}
    assert len(load_state(together / "outcome" / LAST)["random"]) == 2


def test_results_have_a_time(together: Path) -> None:
    results, _ = read(together / "outcome", 0)

    assert all(EpochResult(**result).examples_per_second > 0 for result in results)
