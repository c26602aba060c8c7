import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from dsgkd.study.config import ClusterConfig, ConfirmationConfig, StudyConfig
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import RunConfig


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this module's own, in a folder of its own."""
    before = dict(os.environ)
    os.environ.update({"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"})
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=3,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=0,
            log_to_driver=False,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def study_in(make_config: Callable[..., RunConfig], zoo: Path):
    """Return a function that makes a study of a few seconds in a folder."""

    def make(out: Path, name: str = "small", **changes) -> StudyConfig:
        settings = {
            "run": make_config(optimisation={"epochs": 2}),
            "teachers": (str(zoo / "teacher"),),
            "space": SearchSpace(mappings=("uniform", "last-1")),
            "search": SearchConfig(trials=3),
            "pruning": PruningConfig("asha", grace_epochs=1),
            "confirmation": ConfirmationConfig(seeds=2),
            "cluster": ClusterConfig(max_concurrent=2),
            "estimate": False,
            "headroom": False,
        }
        return StudyConfig(name=name, out=out, **settings | changes)

    return make


@pytest.fixture
def make_study(study_in, tmp_path: Path):
    """Return a function that makes a study of a few seconds."""
    return lambda name="small", **changes: study_in(tmp_path / "studies", name, **changes)
