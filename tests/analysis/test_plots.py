"""Figures show the numbers of the frames, and survive a study that has hardly begun."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from small_study import SEEDS, World

import analysis
from analysis import plots

DRAWINGS: dict[str, Callable[[analysis.Results], Figure]] = {
    "learning_curves": lambda results: plots.learning_curves(
        results.metrics, results.trials, "auroc"
    ),
    "methods": lambda results: plots.methods(analysis.confirmed(results), "auroc"),
    "arms_and_differences": lambda results: plots.arms_and_differences(
        analysis.confirmed(results), analysis.differences(results), "auroc"
    ),
    "search_history": lambda results: plots.search_history(results.trials),
    "alpha": lambda results: plots.parameter(results.trials, "alpha"),
    "text": lambda results: plots.parameter(results.trials, "layer_mapping"),
    "other": lambda results: plots.parameter(results.trials, "warm_up"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_axis_is_labelled_and_the_figure_can_be_saved(study: World, name: str) -> None:
    figure = DRAWINGS[name](study.results())
    assert figure.axes
    for panel in figure.axes:
        assert panel.get_ylabel() or name == "arms_and_differences"
        assert panel.get_xlabel() or name == "methods"
    target = io.BytesIO()
    figure.savefig(target, format="png")
    assert target.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.filterwarnings("error")
def test_a_study_without_trials_can_be_drawn(world: World, name: str) -> None:
    DRAWINGS[name](world.results()).savefig(io.BytesIO(), format="png")


def test_methods_draws_one_point_per_seed_and_the_mean(study: World) -> None:
    runs = analysis.confirmed(study.results())
    (panel,) = plots.methods(runs, "auroc").axes
    points, bar = panel.collections[0], panel.collections[1]
    plain = runs[runs.method == "plain"].test_auroc
    assert len(points.get_offsets()) == len(SEEDS)
    assert np.allclose(np.sort(points.get_offsets()[:, 1]), np.sort(plain))
    assert np.allclose(bar.get_segments()[0][:, 1], plain.mean())
    assert [label.get_text() for label in panel.get_xticklabels()] == [
        "plain",
        "mlkd",
        "random-teacher",
    ]


def test_differences_are_drawn_with_their_intervals_and_stuck_runs_hollow(study: World) -> None:
    results = study.results()
    runs = analysis.confirmed(results)
    runs = runs.assign(stuck=(runs.method == "plain") & (runs.seed == SEEDS[0]))
    found = analysis.differences(results)
    left, right = plots.arms_and_differences(runs, found, "auroc").axes
    points = [part for part in left.collections if isinstance(part, PathCollection)]
    hollow = [part for part in points if not len(part.get_facecolor())]
    assert sum(len(part.get_offsets()) for part in hollow) == 1
    shown = found[found.method == "mlkd"]
    drawn = [part.get_segments()[0][:, 0] for part in right.collections]
    assert np.allclose(drawn, shown[["low", "high"]])
    assert len(right.get_yticklabels()) == 2


@pytest.mark.parametrize("smaller", [False, True])
def test_the_best_so_far_never_gets_worse(study: World, smaller: bool) -> None:
    (panel,) = plots.search_history(study.results().trials, smaller_is_better=smaller).axes
    for line in panel.get_lines():
        steps = np.diff(np.asarray(line.get_ydata(), dtype=float))
        assert (steps <= 0).all() if smaller else (steps >= 0).all()


def test_learning_curves_draw_each_trial_once_per_panel(world: World) -> None:
    trial = world.trial("plain", "search", 0.8, "preempted")
    world.trial("plain", "search", 0.9, trial_id=trial, attempt=1)
    world.trial("mlkd", "search", 0.7, "pruned")
    results = world.results()
    panel = plots.learning_curves(results.metrics, results.trials, "auroc").axes[1]
    curves = [line for line in panel.get_lines() if len(np.asarray(line.get_xdata())) > 1]
    assert len(curves) == 2
    assert max(np.max(np.asarray(line.get_ydata())) for line in curves) == pytest.approx(0.9)


def test_a_parameter_over_orders_of_magnitude_is_drawn_on_a_logarithmic_axis(world: World) -> None:
    for rate in (1e-5, 1e-4, 1e-3):
        world.trial("plain", "search", 0.8, encoder_lr=rate, alpha=rate)
    world.trial("plain", "search", 0.8, alpha=0.0, encoder_lr=1e-4)
    for value in (0.01, 3.0, 5.0, 9.0):
        world.trial("plain", "search", 0.8, encoder_lr=1e-4, spread=value)
    trials = world.results().trials
    assert plots.parameter(trials, "encoder_lr").axes[0].get_xscale() == "log"
    for name in ("alpha", "spread"):
        assert plots.parameter(trials, name).axes[0].get_xscale() == "linear"


def test_methods_keep_their_colour_whatever_is_drawn_beside_them(study: World) -> None:
    trials = study.results().trials
    beside = plots._styles(trials)
    assert list(beside) == ["plain", "mlkd", "random-teacher"]
    for method, style in beside.items():
        assert plots._styles(trials[trials.method == method]) == {method: style}
    many = trials.head(1).assign(role="method")
    many = pd.concat([many.assign(method=f"m{number}") for number in range(12)])
    assert len(set(plots._styles(many).values())) >= 5
