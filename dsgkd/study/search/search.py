"""The search: Optuna, asked and told.

Each method is searched by an Optuna study of its own, so none is tuned better than another. One can
be the reference: it is searched first, and the others keep the best values of what it draws. The
journal in the study's folder is a view of the ledger that `optuna-dashboard` opens at any moment.
"""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.history import TrialHistory
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.objectives import Constraint, direction_of, judged
from dsgkd.study.search.config import ParameterPoint, SearchConfig
from dsgkd.study.search.sampling import Suggest, fitting, grid, is_settled, new_sampler
from dsgkd.study.search.studies import STATES, MethodStudies, has, violations
from dsgkd.study.spec import PlannedTrial, TrialSpec
from dsgkd.training.config import RunConfig


class Search(TrialCallback):
    """Ask-and-tell search over several methods; follows the trials that it was asked for.

    Args:
        journal: file for the view that Optuna's tools open.
        name: the study's name.
        config: how to search.
        run: what trials have in common; names the objective.
        budgets: method -> number of trials.
        suggest: draws a run for a method from an Optuna trial.
        initial_points: points to try before any is drawn.
        seed: decides what is drawn.
        past: what the ledger knows of earlier trials.
        reference: a method whose best values the others keep; empty: none.
        top: so many of its best points are kept, one after the other.
        on_match: is told these points when they are known.
    """

    def __init__(
        self,
        journal: Path,
        name: str,
        config: SearchConfig,
        run: RunConfig,
        budgets: Mapping[str, int],
        suggest: Suggest,
        initial_points: Sequence[ParameterPoint] = (),
        seed: int = 17,
        past: Mapping[str, TrialHistory] | None = None,
        reference: str = "",
        top: int = 1,
        on_match: Callable[[Sequence[ParameterPoint]], None] = lambda points: None,
    ) -> None:
        self._config, self._budgets, self._suggest = config, dict(budgets), suggest
        self._seed, self._objective = seed, run.selection.objective
        self._reference, self._top, self._on_match = reference, top, on_match
        self._given = initial_points
        self._kept: list[ParameterPoint] | None = None if reference else []
        self._points: dict[str, list[ParameterPoint]] = {}
        for method in [reference] if reference else self._budgets:
            self._points[method] = self._initial(method, [{}])
        self._asked: dict[str, Trial] = {}
        before = [trial for trial in (past or {}).values() if trial.stage == "search"]
        names = (self._objective, *config.objectives)
        self._studies = MethodStudies(
            journal,
            name,
            list(self._budgets),
            {name: direction_of(name, run.task.measures) for name in names},
            [Constraint.parse(text) for text in config.constraints],
            self._sampler,
            before,
        )
        self._match()
        self._interrupted = [self._candidate(*one) for one in self._studies.interrupted()]
        self._seconds = dict.fromkeys(self._budgets, 0.0)
        self._ended = dict.fromkeys(self._budgets, 0)
        for trial in before:
            if trial.method in self._budgets:
                self._seconds[trial.method] += trial.seconds
                self._ended[trial.method] += trial.finished

    @property
    def _is_grid(self) -> bool:
        return self._config.sampler == "grid"

    def _initial(self, method: str, kept: Sequence[ParameterPoint]) -> list[ParameterPoint]:
        """Return the points that a method tries first, with the values that it keeps."""
        if self._is_grid:
            per_range = self._config.grid_points
            grids = [grid(self._suggest, method, per_range, self._seed, one) for one in kept]
            points = [point for points in zip(*grids) for point in points]
            self._budgets[method] = min(self._budgets[method], len(points))
            return points
        points = [
            fitting(self._suggest, method, {**point, **kept[at % len(kept)]})
            for at, point in enumerate(self._given)
        ]
        return [point for at, point in enumerate(points) if point and point not in points[:at]]

    def _match(self) -> None:
        """Let the others keep the reference's best values, once its last trial is over."""
        if self._kept is not None:
            return
        study = self._studies[self._reference]
        trials = study.get_trials(deepcopy=False)
        over = [trial for trial in trials if trial.state.is_finished()]
        if len(over) < max(self._budgets[self._reference], len(trials)):
            return
        self._kept = []
        for frozen in self._studies.best(self._reference):
            if frozen.params not in self._kept:
                self._kept.append(frozen.params)
        del self._kept[self._top :]
        for method in self._budgets:
            if method != self._reference:
                self._points[method] = self._initial(method, self._kept or [{}])
                self._settle(method)
        self._on_match(self._kept)

    def _settle(self, method: str) -> None:
        """Give a method that draws nothing of its own one trial with each of the kept points."""
        kept = self._kept or []
        if kept and is_settled(self._suggest, method, kept[0]):
            tried = self._studies[method].get_trials(deepcopy=False)
            missing = sum(not any(has(trial, point) for trial in tried) for point in kept)
            self._budgets[method] = len(tried) + missing

    def _kept_by(self, method: str) -> ParameterPoint:
        """Return the values that the next trial of a method keeps: those it tried least."""
        if method == self._reference or not self._kept:
            return {}
        tried = self._studies[method].get_trials(deepcopy=False)
        return min(self._kept, key=lambda point: sum(has(trial, point) for trial in tried))

    def ask(self) -> PlannedTrial | None:
        """Return the next configuration, the methods taking turns; None when all is asked, or where
        the search `waits`.

        Raises:
            InputError: the journal cannot be written.
        """
        if self._interrupted:
            return self._interrupted.pop(0)
        self._match()
        counts = {method: self._count(method) for method in self._budgets}
        if sum(counts.values()) >= sum(self._budgets.values()):
            return None
        if self._config.equal == "seconds":
            used = {method: self._expected_seconds(method, counts) for method in counts}
            limits = self._limits()
        else:
            used = {method: float(count) for method, count in counts.items()}
            limits = self._budgets
        open_methods = [m for m in counts if counts[m] < limits.get(m, math.inf)]
        if self._kept is None:
            open_methods = [method for method in open_methods if method == self._reference]
        if not open_methods:
            return None
        method = min(open_methods, key=used.__getitem__)
        return self._candidate(method, self._draw(method, counts[method]))

    @property
    def waits(self) -> bool:
        """Whether there is more to ask for, but not before another trial has ended."""
        return bool(
            self._kept is None
            and sum(map(self._count, self._budgets)) < sum(self._budgets.values())
        )

    def _limits(self) -> dict[str, int]:
        """Return the most trials of methods, where all get the same seconds.

        The reference has its share of the trials, for the others wait for it; the rest is divided
        among them by what they cost.
        """
        limited = set(self._budgets) if self._is_grid else {self._reference}
        if self._kept:
            limited |= {m for m in self._budgets if is_settled(self._suggest, m, self._kept[0])}
        return {m: budget for m, budget in self._budgets.items() if m in limited}

    def _draw(self, method: str, number: int) -> Trial:
        study, points = self._studies[method], self._points[method]
        study.sampler = self._sampler(method, number)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number < len(points) and not waiting:
            study.enqueue_trial(dict(points[number]))
        return study.ask()

    def _sampler(self, method: str, number: int) -> BaseSampler:
        seed = zlib.crc32(f"{self._seed}/{method}/{number}".encode())
        constraints = violations if self._config.constraints else None
        return new_sampler(self._config.sampler, seed, constraints, self._kept_by(method))

    def _candidate(self, method: str, trial: Trial) -> PlannedTrial:
        trial_id = _name(method, trial.number)
        run = self._suggest(trial, method)
        self._asked[trial_id] = trial
        parameters = {
            name: {
                "value": value,
                "distribution": json.loads(distribution_to_json(trial.distributions[name])),
            }
            for name, value in trial.params.items()
        }
        return PlannedTrial("search", method, trial_id, run, parameters=parameters)

    def _count(self, method: str) -> int:
        trials = self._studies[method].get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING for trial in trials)

    def _expected_seconds(self, method: str, counts: Mapping[str, int]) -> float:
        """What a method has used, and what its running trials will have used when they end."""
        ended = self._ended[method]
        mean = self._seconds[method] / ended if ended else 1.0
        return self._seconds[method] + mean * (counts[method] - ended)

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note an epoch's score; one that is no number is left out."""
        if spec.trial_id in self._asked and math.isfinite(epoch.score):
            self._studies.note(self._asked[spec.trial_id], epoch.epoch, epoch.score)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Note how a trial ended; a pre-empted one stays open."""
        if spec.trial_id not in self._asked:
            return  # a link
        self._seconds[spec.method] += end.charge.worker_seconds
        if end.state in STATES:
            values = judged(end)
            if end.last is not None:
                values[self._objective] = end.last.best_objective
            self._ended[spec.method] += 1
            self._studies.tell(self._asked[spec.trial_id], end.state, values)

    def best(self, method: str, count: int = 1) -> list[PlannedTrial]:
        """Return the best complete configurations of a method, best first.

        Of a method that keeps the reference's values, the best with the reference's best values,
        then the best with its second best, and so on.
        """
        if method == self._reference or not self._kept:
            chosen = self._studies.best(method, count)
        else:
            chosen = [
                trial
                for point in self._kept[:count]
                for trial in self._studies.best(method, 1, point)
            ]
        found = []
        for frozen in chosen:
            fixed = optuna.trial.FixedTrial(frozen.params)
            run = self._suggest(fixed, method)  # type: ignore[arg-type]
            found.append(PlannedTrial("search", method, _name(method, frozen.number), run))
        return found


def _name(method: str, number: int) -> str:
    return f"search-{method}-{number:03d}"
