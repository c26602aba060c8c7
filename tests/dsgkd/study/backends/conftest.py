"""Trials that are learning curves: what each backend has to make of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsgkd.study.backends.backend import Backend
from dsgkd.study.backends.simulated import SimulatedBackend
from dsgkd.study.backends.tune import TuneBackend
from dsgkd.study.cost.curves import Curve
from dsgkd.study.messages import EpochFinished, Report, TrialFailed, TrialFinished
from dsgkd.study.spec import TrialSpec

Curves = dict[str, Curve]
NewBackend = Callable[[Curves, int], Backend]


def steps_of(curves: Curves) -> Callable[[TrialSpec], Iterator[Report]]:
    """Return what trials do that report curves at once."""

    def steps(spec: TrialSpec) -> Iterator[Report]:
        curve = curves[spec.trial_id]
        for epoch in range(spec.known_epochs + 1, len(curve.scores) + 1):
            yield EpochFinished(
                epoch=epoch,
                score=curve.scores[epoch - 1],
                validation={"auroc": curve.scores[epoch - 1]},
                best_epoch=epoch,
                best_objective=max(curve.scores[:epoch]),
                finished=epoch == len(curve.scores),
            )
        yield TrialFailed(reason="it had failed") if curve.failed else TrialFinished()

    return steps


@pytest.fixture(
    params=["simulated", pytest.param("tune", marks=[pytest.mark.ray, pytest.mark.slow])]
)
def new_backend(request: pytest.FixtureRequest, tmp_path: Path) -> NewBackend:
    """Return a function that makes a backend for curves, with so many trials at a time."""
    if request.param == "simulated":
        return lambda curves, slots: SimulatedBackend(lambda spec: curves[spec.trial_id], slots)
    request.getfixturevalue("local_ray")
    return lambda curves, slots: TuneBackend({"cpu": 1}, slots, tmp_path / "tune", steps_of(curves))
