"""Under Ray Train, two workers do what one process does, and survive the death of one."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dsgkd.storage.checkpoint import Checkpoints, load_state, save_state
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import train
from dsgkd.training.opening import open_run

pytestmark = pytest.mark.ray


def train_and_tell(settings: dict[str, Any]) -> None:
    """What a worker does; with a file to mark it, the second one is killed in epoch 2, once."""
    import signal

    import ray.train

    torch.set_num_threads(1)
    rank = ray.train.get_context().get_world_rank()
    folder: Path = settings["folder"]
    run = open_run(settings["config"], settings["cache"])
    results = []
    for result in train(run, Checkpoints(folder)):
        results.append(vars(result))
        if settings["dies"] and rank == 1 and result.epoch == 2 and not (folder / "died").exists():
            (folder / "died").write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        ray.train.report({"epoch": result.epoch, "loss": result.validation["loss"]})
    save_state(folder / f"seen-{rank}", {"results": results, **run.distiller.state_dict()})


@pytest.fixture(scope="module")
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    terms = {"alpha": 1.0, "beta": 0.5}
    return make_config("still-student", "teacher", terms, {"adam_epsilon": 1e-3})


@pytest.fixture(scope="module")
def fit(config: RunConfig, cache: Path) -> Iterator[Callable[[Path, bool], None]]:
    """Return a function that trains under Ray Train, on a Ray of this file's own."""
    import ray
    from ray import cloudpickle
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    here = __import__(__name__)
    cloudpickle.register_pickle_by_value(here)  # the workers cannot import a test
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")  # paths of sockets must be short
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.delenv("RAY_ADDRESS", raising=False)
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=place,
        log_to_driver=False,
        logging_level="ERROR",
    )

    def run(folder: Path, dies: bool) -> None:
        folder.mkdir()
        trainer = TorchTrainer(
            train_and_tell,
            train_loop_config={"config": config, "cache": cache, "folder": folder, "dies": dies},
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RayRunConfig(
                name="run",
                storage_path=str(folder / "ray"),
                failure_config=FailureConfig(max_failures=1),
            ),
        )
        trainer.fit()

    try:
        yield run
    finally:
        ray.shutdown()
        cloudpickle.unregister_pickle_by_value(here)
        patch.undo()
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(
    fit: Callable[[Path, bool], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "undisturbed"
    fit(folder, False)
    return folder


def test_two_ray_workers_reach_the_losses_measures_and_weights_of_one_process(
    undisturbed: Path, config: RunConfig, cache: Path, tmp_path: Path
) -> None:
    run = open_run(config, cache)
    expected = list(train(run, Checkpoints(tmp_path)))

    for rank in (0, 1):
        seen = load_state(undisturbed / f"seen-{rank}")
        results = seen.pop("results")
        assert len(results) == len(expected)
        for result, wanted in zip(results, expected, strict=True):
            assert result["weighted"] == pytest.approx(wanted.weighted, rel=1e-4)
            assert result["validation"] == pytest.approx(wanted.validation, rel=1e-4)
            assert result["step"] == wanted.step
        for name, weight in run.distiller.state_dict().items():
            torch.testing.assert_close(seen[name], weight, rtol=1e-3, atol=2e-5, msg=name)


def test_a_worker_that_is_killed_is_replaced_and_the_run_ends_with_the_same_weights(
    undisturbed: Path, fit: Callable[[Path, bool], None], tmp_path: Path
) -> None:
    fit(tmp_path / "disturbed", True)

    assert (tmp_path / "disturbed" / "died").exists()
    for rank in (0, 1):
        expected = load_state(undisturbed / f"seen-{rank}")
        seen = load_state(tmp_path / "disturbed" / f"seen-{rank}")
        assert [r["epoch"] for r in seen.pop("results")] == [3]
        assert expected.pop("results")[0]["epoch"] == 1
        assert all(torch.equal(seen[name], weight) for name, weight in expected.items())
