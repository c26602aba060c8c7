"""What should be tried next, and what is not worth going on with? Optuna, asked and told.

Each method is searched by an Optuna study of its own, `name/method`, so none is tuned better than
another. A trial that was stopped early is PRUNED with its intermediate values (stock OptunaSearch
records it as COMPLETE at low fidelity), a failed one is FAIL, a pre-empted one stays RUNNING and is
asked for again. The journal in the study's folder is a view of the ledger that `optuna-dashboard`
opens at any moment: where it is damaged, missing or behind, it is brought to agree with the
ledger, which is the truth.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from dsgkd.errors import InputError
from dsgkd.study.history import TrialHistory
from dsgkd.study.objectives import Constraint, check_name, judged, smaller_is_better
from dsgkd.study.search.journal import Journal
from dsgkd.study.search.pruning import EarlyStopper, PruningConfig
from dsgkd.study.search.sampling import ParameterPoint, Sampler, Suggest, fitting, grid, new_sampler
from dsgkd.study.trial import Report, TrialSpec
from dsgkd.tasks.measures import improvement
from dsgkd.training.run import RunConfig

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class SearchConfig:
    """How the space is searched."""

    trials: int = 12
    """Search trials in all; may be raised later."""
    sampler: Sampler = "tpe"
    """`tpe` (multivariate, grouped), `random`, `grid`, `cma-es`, `gp`, or `nsga2`."""
    equal: Literal["trials", "seconds"] = "trials"
    """What the methods get the same of: search trials, or worker seconds of searching."""
    objectives: tuple[str, ...] = ()
    """Measures or costs beside the run's objective that are weighed against it."""
    constraints: tuple[str, ...] = ()
    """Bounds such as recall>=0.9 that the best configuration has to keep to."""
    grid_points: int = 3
    """Values that a grid takes of each range."""

    def __post_init__(self) -> None:
        for name in self.objectives:
            check_name(name)
        for text in self.constraints:
            Constraint.parse(text)
        if self.objectives and self.sampler in ("cma-es",):
            raise InputError(
                "sampler", f"{self.sampler} knows one objective only", "choose nsga2, tpe or gp"
            )
        if self.grid_points < 1:
            raise InputError("grid_points", f"{self.grid_points} is too few", "give 1 or more")


@dataclass(frozen=True)
class Candidate:
    """A configuration to try."""

    trial_id: str
    method: str
    run: RunConfig
    parameters: dict[str, dict[str, Any]]
    """Searched name -> value and distribution, enough to put it into another Optuna study."""


class Search:
    """Ask-and-tell search over several methods; a callback of the trials that it asked for.

    Args:
        journal: file for the view that Optuna's tools open.
        name: the study's name.
        config: how to search.
        pruning: when to stop a trial early.
        run: what trials have in common; names the objective and the number of epochs.
        budgets: method -> number of trials.
        suggest: draws a run for a method from an Optuna trial.
        first: points to try before any is drawn.
        seed: decides what is drawn.
        past: what the ledger knows of earlier trials.
    """

    def __init__(
        self,
        journal: Path,
        name: str,
        config: SearchConfig,
        pruning: PruningConfig,
        run: RunConfig,
        budgets: Mapping[str, int],
        suggest: Suggest,
        first: Sequence[ParameterPoint] = (),
        seed: int = 17,
        past: Mapping[str, TrialHistory] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._budgets, self._suggest = config, dict(budgets), suggest
        self._seed, self._objective = seed, run.selection.objective
        self._names = (self._objective, *config.objectives)
        self._constraints = [Constraint.parse(text) for text in config.constraints]
        self._points = {method: self._first_points(method, first) for method in self._budgets}
        self._stoppers = {
            method: EarlyStopper(pruning, run.optimisation.epochs) for method in self._budgets
        }
        self._asked: dict[str, Trial] = {}
        self._interrupted: list[Candidate] = []
        self._seconds = dict.fromkeys(self._budgets, 0.0)
        self._ended = dict.fromkeys(self._budgets, 0)
        before = [trial for trial in (past or {}).values() if trial.stage == "search"]
        backend = Journal(journal)
        try:
            self._open(name, backend, before)
        except (_NotTheLedgers, KeyError, ValueError):
            backend.set_aside()
            self._asked.clear()
            self._interrupted.clear()
            self._open(name, Journal(journal), before)
        self._catch_up(before)

    @property
    def _is_grid(self) -> bool:
        return self._config.sampler == "grid"

    def _first_points(self, method: str, first: Sequence[ParameterPoint]) -> list[ParameterPoint]:
        if self._is_grid:
            points = grid(self._suggest, method, self._config.grid_points, self._seed)
            self._budgets[method] = min(self._budgets[method], len(points))
            return points
        points = [fitting(self._suggest, method, point) for point in first]
        return [point for at, point in enumerate(points) if point and point not in points[:at]]

    # What happened before.

    def _open(self, name: str, backend: Journal, past: Sequence[TrialHistory]) -> None:
        storage = JournalStorage(backend)
        directions: list[Literal["minimize", "maximize"]] = [
            "minimize" if smaller_is_better(name) else "maximize" for name in self._names
        ]
        self._studies = {
            method: optuna.create_study(
                storage=storage,
                study_name=f"{name}/{method}",
                directions=directions,
                load_if_exists=True,
                sampler=self._sampler(method, 0),
                pruner=optuna.pruners.NopPruner(),  # the stopper decides
            )
            for method in self._budgets
        }
        for method, study in self._studies.items():
            if study.metric_names is None:
                study.set_metric_names(list(self._names))  # for people who look at the journal
            ours = [trial for trial in past if trial.method == method]
            for trial in sorted(ours, key=lambda trial: _number(trial.trial_id)):
                self._reconcile(study, trial)
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.sampler = self._sampler(method, frozen.number)
                self._interrupted.append(self._candidate(method, Trial(study, frozen._trial_id)))
        self._interrupted.sort(key=lambda candidate: _number(candidate.trial_id))

    def _reconcile(self, study: optuna.Study, past: TrialHistory) -> None:
        """Make Optuna's study say of one trial what the ledger says."""
        number = _number(past.trial_id)
        known = study.get_trials(deepcopy=False)
        while len(known) < number:  # asked for and lost before it was started
            study.ask()
            known = study.get_trials(deepcopy=False)
        drawn = {name: one["value"] for name, one in past.parameters.items()}
        if len(known) == number:
            if past.finished:
                study.add_trial(self._frozen(past))
                return
            study.enqueue_trial(drawn)
            frozen = study.ask()._cached_frozen_trial
        else:
            frozen = known[number]
            if frozen.params != drawn:
                raise _NotTheLedgers
        if frozen.state.is_finished():
            if self._state(past) != frozen.state:
                raise _NotTheLedgers
            return
        trial = Trial(study, frozen._trial_id)
        for epoch, score in past.scores.items():
            self._note(trial, epoch, score)
        if past.finished:
            self._tell(trial, past.state, past.values)

    def _state(self, past: TrialHistory) -> TrialState:
        if past.state == "complete" and not all(name in past.values for name in self._names):
            return TrialState.FAIL
        return _STATES.get(past.state, TrialState.RUNNING)

    def _frozen(self, past: TrialHistory) -> FrozenTrial:
        state, values = self._state(past), None
        if state == TrialState.COMPLETE:
            values = [past.values[name] for name in self._names]
        scores = {} if len(self._names) > 1 else past.scores
        reported = {e: improvement(self._objective, s) for e, s in scores.items()}
        if state == TrialState.PRUNED and reported:  # as Optuna does
            values = [reported[max(reported)]]
        violations = self._violated(past.values)
        return optuna.trial.create_trial(
            state=state,
            values=values,
            params={name: one["value"] for name, one in past.parameters.items()},
            distributions={
                name: json_to_distribution(json.dumps(one["distribution"]))
                for name, one in past.parameters.items()
            },
            user_attrs={**violations, **past.values},
            system_attrs={"constraints": violations["violations"]} if violations else {},
            intermediate_values=reported,
        )

    def _catch_up(self, past: Sequence[TrialHistory]) -> None:
        """Put the pruning record and the spent seconds where they were.

        Trials that were cut off come last: what is decided about them then knows all the others,
        as it would have if the study had gone on.
        """
        for trial in sorted(past, key=lambda trial: not trial.finished):
            if trial.method not in self._budgets:
                continue
            stopper = self._stoppers[trial.method]
            for epoch, score in trial.scores.items():
                stopper.report(trial.trial_id, epoch, score)
            if trial.finished:
                stopper.end(trial.trial_id, trial.state)
                self._ended[trial.method] += 1
            self._seconds[trial.method] += trial.seconds

    # What comes next.

    def ask(self) -> Candidate | None:
        """Return the next configuration, the methods taking turns; None when all is asked.

        Raises:
            InputError: the journal cannot be written.
        """
        if self._interrupted:
            candidate = self._interrupted.pop(0)
        else:
            counts = {method: self._count(method) for method in self._budgets}
            if sum(counts.values()) >= sum(self._budgets.values()):
                return None
            if self._config.equal == "seconds":
                used = {method: self._expected_seconds(method, counts) for method in counts}
                limits = {m: len(self._points[m]) for m in counts} if self._is_grid else {}
            else:
                used = {method: float(count) for method, count in counts.items()}
                limits = self._budgets
            open_methods = [m for m in counts if counts[m] < limits.get(m, math.inf)]
            method = min(open_methods, key=used.__getitem__)
            candidate = self._candidate(method, self._draw(method, counts[method]))
        return candidate

    def _draw(self, method: str, number: int) -> Trial:
        study, points = self._studies[method], self._points[method]
        study.sampler = self._sampler(method, number)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number < len(points) and not waiting:
            study.enqueue_trial(dict(points[number]))
        return study.ask()

    def _sampler(self, method: str, number: int) -> BaseSampler:
        seed = zlib.crc32(f"{self._seed}/{method}/{number}".encode())
        constraints = _violations if self._constraints else None
        return new_sampler(self._config.sampler, seed, constraints)

    def _candidate(self, method: str, trial: Trial) -> Candidate:
        trial_id = f"search-{method}-{trial.number:03d}"
        run = self._suggest(trial, method)
        self._asked[trial_id] = trial
        parameters = {
            name: {
                "value": value,
                "distribution": json.loads(distribution_to_json(trial.distributions[name])),
            }
            for name, value in trial.params.items()
        }
        return Candidate(trial_id, method, run, parameters)

    def _count(self, method: str) -> int:
        trials = self._studies[method].get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING for trial in trials)

    def _expected_seconds(self, method: str, counts: Mapping[str, int]) -> float:
        """What a method has used, and what its running trials will have used when they end."""
        ended = self._ended[method]
        mean = self._seconds[method] / ended if ended else 1.0
        return self._seconds[method] + mean * (counts[method] - ended)

    # What its trials did.

    def started(self, spec: TrialSpec) -> None:
        """Nothing to note: it was asked for."""

    def reported(self, spec: TrialSpec, report: Report) -> None:
        """Note an epoch's score; one that is no number is left out."""
        score = report["score"]
        if score is not None and math.isfinite(score):
            self._stoppers[spec.method].report(spec.trial_id, report["epoch"], score)
            self._note(self._asked[spec.trial_id], report["epoch"], score)

    def should_stop(self, spec: TrialSpec) -> bool:
        """Whether a trial's last report is too low to go on."""
        return self._stoppers[spec.method].should_stop(spec.trial_id)

    def ended(self, spec: TrialSpec, report: Report, state: str, reason: str) -> None:
        """Note how a trial ended.

        A complete trial without a finite value counts as failed; a pre-empted one stays open.
        """
        self._seconds[spec.method] += report["worker_seconds"]
        if state not in _STATES:
            return
        values = judged(report)
        score = report.get("best_score")
        if score is not None:
            values[self._objective] = improvement(self._objective, score)
        self._stoppers[spec.method].end(spec.trial_id, state)
        self._ended[spec.method] += 1
        self._tell(self._asked[spec.trial_id], state, values)

    def _note(self, trial: Trial, epoch: int, score: float) -> None:
        if len(self._names) > 1:
            return  # Optuna keeps no intermediate values of several objectives; the ledger does
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch not in known:  # a resumed trial may repeat its last epoch
            trial.report(improvement(self._objective, score), epoch)

    def _tell(self, trial: Trial, state: str, values: Mapping[str, float]) -> None:
        told = [values.get(name, math.nan) for name in self._names]
        for name in dict.fromkeys((*self._names, *(c.name for c in self._constraints))):
            if math.isfinite(values.get(name, math.nan)):
                trial.set_user_attr(name, values[name])
        for name, violations in self._violated(values).items():
            trial.set_user_attr(name, violations)
        if state == "complete" and all(map(math.isfinite, told)):
            trial.study.tell(trial, told)
        elif state == "pruned":
            trial.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.study.tell(trial, state=TrialState.FAIL)

    def _violated(self, values: Mapping[str, float]) -> dict[str, list[float]]:
        """How far each constraint is violated, as an attribute of Optuna's; none without them."""
        if not self._constraints:
            return {}
        # Optuna's samplers want finite numbers; a missing value is violated beyond doubt.
        return {"violations": [min(c.violation(values), 1e9) for c in self._constraints]}

    # What was best.

    def best(self, method: str, count: int = 1) -> list[Candidate]:
        """Return the best complete configurations of a method, best first.

        Those that violate a constraint are left out; with several objectives, so are those that
        another one beats in every respect. The order is that of the first objective.
        """
        study = self._studies[method]
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        kept = [t for t in complete if all(v <= 0 for v in t.user_attrs.get("violations", ()))]
        signs = [-1 if smaller_is_better(name) else 1 for name in self._names]
        scores = {t.number: [s * v for s, v in zip(signs, t.values)] for t in kept}
        front = [
            t for t in kept if not any(_beats(other, scores[t.number]) for other in scores.values())
        ]
        chosen = front if len(self._names) > 1 else kept
        chosen.sort(key=lambda t: (-scores[t.number][0], t.number))
        winners = []
        for frozen in chosen[:count]:
            fixed = optuna.trial.FixedTrial(frozen.params)
            run = self._suggest(fixed, method)  # type: ignore[arg-type]
            trial_id = f"search-{method}-{frozen.number:03d}"
            winners.append(Candidate(trial_id, method, run, {}))
        return winners


class _NotTheLedgers(Exception):
    """The journal tells another story than the ledger."""


def _violations(frozen: FrozenTrial) -> Sequence[float]:
    violations: Sequence[float] = frozen.user_attrs["violations"]
    return violations


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is at least as good in every respect and better in some."""
    return all(a >= b for a, b in zip(one, other)) and any(a > b for a, b in zip(one, other))


def _number(trial_id: str) -> int:
    return int(trial_id.rsplit("-", 1)[1])
