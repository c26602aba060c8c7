"""What the search finds at equal cost, against stock OptunaSearch and chance.

Everybody searches the same space of a study (`SearchSpace`, two teachers) through Tune, two trials
at a time, on learning curves whose optimum is known (`landscape.py`), and may train the same number
of epochs in all. What counts is the regret: how much the configuration that each would hand on,
by its own rule, loses to the optimum when trained whole and measured without noise.
"""

import random
import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import landscape
from harness import Row, Section, Spread
from landscape import DEPTHS, EPOCHS, PEAK, CurveActor, Landscape, ParameterPoint, point_of, steps
from local_ray import CPUS, LocalRay
from optuna.samplers import RandomSampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from dsgkd.models.student import StudentConfig
from dsgkd.study.backends.tune import TuneBackend
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.messages import Charge, EpochFinished
from dsgkd.study.search.arms import MLKD, Arm
from dsgkd.study.search.config import PruningConfig, SearchConfig
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.search import Search
from dsgkd.study.search.space import SearchSpace
from dsgkd.study.spec import TrialSpec
from dsgkd.training.config import OptimisationConfig, RunConfig

BUDGET = 400
"""Epochs of each search."""
SEEDS = range(20)
"""Each is a landscape and the searchers' seed. None of them was used to choose a setting. Who runs
this again on others should report both: 20 are few, see `docs/performance.md`."""
MANY = 1_000
"""Trials at most: more than any budget pays for."""
SPACE = SearchSpace(
    **landscape.RANGES,  # type: ignore[arg-type]
    cs_max_len=landscape.WORDS,
    mappings=landscape.MAPPINGS,
)
TEACHERS = {name: name for name in DEPTHS if name != "student"}
PRUNING = PruningConfig("asha", grace_epochs=3)
DRAWS = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True)
class Seen:
    """A report of an epoch."""

    trial: str
    point: ParameterPoint
    epoch: int
    score: float


@dataclass
class Trace(tune.Callback, tune.Stopper, TrialCallback):
    """All reports of a search in the order in which they came; ends it when they are enough."""

    budget: int
    seen: list[Seen] = field(default_factory=list)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Note a report of stock Tune."""
        point, epoch = trial.config["point"], result["training_iteration"]
        self.seen.append(Seen(trial.trial_id, point, epoch, result["score"]))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return result["training_iteration"] >= EPOCHS

    def stop_all(self) -> bool:
        """Whether the budget is spent."""
        return len(self.seen) >= self.budget

    # As a callback of a study.

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note a report of a study."""
        self.seen.append(Seen(spec.trial_id, point_of(spec.run), epoch.epoch, epoch.score))

    def exceeded(self, at: datetime) -> str | None:
        """Return the limit that is reached."""
        return f"{self.budget} epochs" if self.stop_all() else None


# Whom each would hand on.

Rule = Callable[[list[Seen]], Seen]


def last(seen: list[Seen]) -> Seen:
    """Return the best last report of a trial: `get_best_result` as it is by default."""
    newest = {one.trial: one for one in seen}
    return max(newest.values(), key=lambda one: one.score)


def highest(seen: list[Seen]) -> Seen:
    """Return the best report of all: `get_best_result(scope="all")`."""
    return max(seen, key=lambda one: one.score)


def whole(seen: list[Seen]) -> Seen:
    """Return the best report of the trials that came to their end, as `Search.best` does."""
    ended = {one.trial for one in seen if one.epoch == EPOCHS}
    return highest([one for one in seen if one.trial in ended] or seen)


# The searchers.


def bridge(seeds: Iterator[int], budget: int, folder: Path) -> dict[int, list[Seen]]:
    """Search each landscape with a study's own pieces; one run of Tune, a stage for each."""
    traces = {seed: Trace(budget) for seed in seeds}

    def stages() -> Generator[Stage, None, None]:
        for seed, trace in traces.items():
            search, pruning = _search(seed, folder), PruningCallback(PRUNING, EPOCHS)
            yield Stage(
                "search",
                _specs(search, seed),
                callbacks=(search, pruning, trace),
                should_stop=pruning.should_stop,
                exceeded=trace.exceeded,
            )
            (best,) = search.best(MLKD)
            assert point_of(best.run) == whole(trace.seen).point

    TuneBackend({"cpu": 1}, CPUS, folder / "tune", steps).run(Dispatcher(stages(), CPUS))
    return {seed: trace.seen for seed, trace in traces.items()}


def _run(seed: int) -> RunConfig:
    return RunConfig(
        student=StudentConfig("student"),
        optimisation=OptimisationConfig(epochs=EPOCHS),
        seed=seed,
    )


def _suggest(trial: Any, run: RunConfig) -> RunConfig:
    return SPACE.suggest(trial, Arm(MLKD, "method"), run, TEACHERS, DEPTHS)


def _search(seed: int, folder: Path) -> Search:
    run = _run(seed)
    return Search(
        folder / f"{seed}.journal",
        "bench",
        SearchConfig(trials=MANY),
        run,
        {MLKD: MANY},
        lambda trial, method: _suggest(trial, run),
        seed=seed,
    )


def _specs(search: Search, seed: int) -> Iterator[TrialSpec]:
    while (planned := search.ask()) is not None:
        yield TrialSpec(
            study_id=f"bench-{seed}",
            trial_id=planned.trial_id,
            attempt=1,
            stage=planned.stage,
            method=planned.method,
            run=planned.run,
            parameters=planned.parameters,
        )


@dataclass(frozen=True)
class _Space:
    """Draws a configuration for stock Tune, which pickles what draws."""

    seed: int

    def __call__(self, trial: Any) -> dict[str, Any]:
        return {"point": point_of(_suggest(trial, _run(self.seed))), "seed": self.seed}


def stock(seed: int, budget: int, folder: Path, tpe: bool, asha: bool) -> list[Seen]:
    """Search a landscape as Tune's documentation recommends."""
    trace, space = Trace(budget), _Space(seed)
    sampler = {} if tpe else {"sampler": RandomSampler(seed)}
    rungs = {
        "max_t": EPOCHS,
        "grace_period": PRUNING.grace_epochs,
        "reduction_factor": PRUNING.reduction_factor,
    }
    results = tune.Tuner(
        tune.with_resources(CurveActor, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space, metric="score", mode="max", seed=seed, **sampler),
            scheduler=ASHAScheduler(**rungs) if asha else FIFOScheduler(),
            metric="score",
            mode="max",
            num_samples=MANY,
            max_concurrent_trials=CPUS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"{seed}-{tpe}-{asha}",
            storage_path=str(folder / "stock"),
            callbacks=[trace],
            stop=trace,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    assert results.get_best_result().config["point"] == last(trace.seen).point
    assert results.get_best_result(scope="all").config["point"] == highest(trace.seen).point
    return trace.seen


# What is reported.


def run(quick: bool) -> Section:
    """Search every landscape with every searcher."""
    seeds, budget = (SEEDS[:2], 100) if quick else (SEEDS, BUDGET)
    with tempfile.TemporaryDirectory(prefix="b", ignore_cleanup_errors=True) as name, LocalRay():
        found = everything(seeds, budget, Path(name))
    return Section("Searching at equal cost", rows(found, budget), notes(found, budget))


Found = dict[str, dict[int, list[Seen]]]
"""Searcher -> seed -> reports."""


def everything(seeds: Any, budget: int, folder: Path) -> Found:
    """Run all searchers."""
    found: Found = {"bridge": bridge(iter(seeds), budget, folder)}
    for name, tpe, asha in (
        ("stock", True, True),
        ("random", False, False),
        ("random + ASHA", False, True),
    ):
        found[name] = {seed: stock(seed, budget, folder, tpe, asha) for seed in seeds}
    return found


COLUMNS: dict[str, tuple[str, Rule]] = {
    "bridge": ("bridge", whole),
    "stock": ("stock", last),
    "stock, scope all": ("stock", highest),
    "stock, whole trials": ("stock", whole),
    "random": ("random", last),
    "random + ASHA": ("random + ASHA", last),
}
"""Column -> searcher, and the rule by which its best is chosen."""


def regrets(found: Found, column: str, epochs: int) -> list[float]:
    """Return the regret of each seed when so many epochs were trained, in thousandths."""
    searcher, rule = COLUMNS[column]
    return [
        1000 * (PEAK - Landscape(seed).value(rule(seen[:epochs]).point))
        for seed, seen in found[searcher].items()
    ]


def rows(found: Found, budget: int) -> list[Row]:
    """Return the regrets at growing cost, and the bridge compared seed by seed."""
    result: list[Row] = []
    for epochs in range(budget // 8, budget + 1, budget // 8):
        at = {column: regrets(found, column, epochs) for column in COLUMNS}
        row: Row = {"epochs": epochs} | {name: Spread.of(values) for name, values in at.items()}
        for other in ("stock", "random"):
            row[f"bridge - {other}"] = difference(at["bridge"], at[other])
        result.append(row)
    return result


def difference(ours: list[float], theirs: list[float]) -> Spread:
    """Return the mean difference by seeds, with the 95 % interval of a bootstrap over seeds."""
    pairs = [one - other for one, other in zip(ours, theirs, strict=True)]
    draw = random.Random(0)
    means = sorted(statistics.fmean(draw.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    low, high = means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]
    return Spread(statistics.fmean(pairs), low, high, len(pairs))


def notes(found: Found, budget: int) -> list[str]:
    """Return what the table does not tell."""
    ours, theirs = regrets(found, "bridge", budget), regrets(found, "stock", budget)
    wins = sum(one < other for one, other in zip(ours, theirs))
    losses = sum(one > other for one, other in zip(ours, theirs))
    counts = {
        name: statistics.median(len({one.trial for one in seen}) for seen in runs.values())
        for name, runs in found.items()
    }
    trials = ", ".join(f"{name} {count:.0f}" for name, count in counts.items())
    return [
        f"regret in thousandths of the objective (optimum {PEAK}, floor {landscape.FLOOR}), median "
        f"and quartiles of {len(ours)} landscapes; bridge - other: mean difference by landscape, "
        "95 % interval of a bootstrap over landscapes (below 0: the bridge is better)",
        f"after {budget} epochs the bridge is ahead of stock in {wins}, behind in {losses}",
        f"trials begun (median): {trials}",
        f"{EPOCHS} epochs a trial, ASHA with grace {PRUNING.grace_epochs} and factor "
        f"{PRUNING.reduction_factor} for all that have it; 2 trials at a time; noise of an epoch "
        f"{landscape.NOISE} to {2 * landscape.NOISE}",
        "stock: OptunaSearch and ASHAScheduler as they are; its best by get_best_result as it is "
        "(last report of any trial), by its highest report (scope all), or as the bridge's: the "
        "highest report of a trial that came to its end",
    ]
