"""The search's Optuna studies, one a method, kept in agreement with the ledger.

A trial that was stopped early is PRUNED with its intermediate values (stock OptunaSearch records it
as COMPLETE at low fidelity), a failed one is FAIL, a pre-empted one stays RUNNING. The journal is a
view of the ledger: where it is damaged, missing or behind, it is brought to agree with it.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import json_to_distribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from dsgkd.ledger.measures import Direction, improvement
from dsgkd.study.history import TrialHistory
from dsgkd.study.objectives import Constraint
from dsgkd.study.search.journal import Journal

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class MethodStudies:
    """One Optuna study for each method, `name/method`, in a journal.

    Args:
        journal: the file.
        name: the study's name.
        methods: names of the methods.
        directions: objectives, that of the run first, and whether more or less of each is better.
        constraints: that the best have to keep to.
        sampler: method and number of a trial -> the sampler that draws it.
        past: search trials that the ledger knows.
    """

    def __init__(
        self,
        journal: Path,
        name: str,
        methods: Sequence[str],
        directions: Mapping[str, Direction],
        constraints: Sequence[Constraint],
        sampler: Callable[[str, int], BaseSampler],
        past: Sequence[TrialHistory],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._name, self._methods, self._sampler = name, methods, sampler
        self._directions, self._constraints = directions, constraints
        self._names = list(directions)
        backend = Journal(journal)
        try:
            self._open(backend, past)
        except (_OtherStoryError, KeyError, ValueError):
            backend.set_aside()
            self._open(Journal(journal), past)

    def __getitem__(self, method: str) -> optuna.Study:
        """Return the study of a method."""
        return self._studies[method]

    def _open(self, backend: Journal, past: Sequence[TrialHistory]) -> None:
        storage = JournalStorage(backend)
        directions: list[Literal["minimize", "maximize"]] = [
            "minimize" if direction == "minimise" else "maximize"
            for direction in self._directions.values()
        ]
        self._studies = {
            method: optuna.create_study(
                storage=storage,
                study_name=f"{self._name}/{method}",
                directions=directions,
                load_if_exists=True,
                sampler=self._sampler(method, 0),
                pruner=optuna.pruners.NopPruner(),  # the stopper decides
            )
            for method in self._methods
        }
        for method, study in self._studies.items():
            if study.metric_names is None:
                study.set_metric_names(self._names)  # for people who look at the journal
            ours = [trial for trial in past if trial.method == method]
            for trial in sorted(ours, key=lambda trial: number_of(trial.trial_id)):
                self._reconcile(study, trial)

    def interrupted(self) -> list[tuple[str, Trial]]:
        """Return method and trial of what was asked for and is not finished."""
        found = []
        for method, study in self._studies.items():
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.sampler = self._sampler(method, frozen.number)
                found.append((method, Trial(study, frozen._trial_id)))
        return sorted(found, key=lambda one: one[1].number)

    def _reconcile(self, study: optuna.Study, past: TrialHistory) -> None:
        """Make Optuna's study say of one trial what the ledger says."""
        number = number_of(past.trial_id)
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
                raise _OtherStoryError
        if frozen.state.is_finished():
            if self._state(past) != frozen.state:
                raise _OtherStoryError
            return
        trial = Trial(study, frozen._trial_id)
        for epoch, score in past.scores.items():
            self.note(trial, epoch, score)
        if past.finished:
            self.tell(trial, past.state, past.values)

    def _state(self, past: TrialHistory) -> TrialState:
        if past.state == "complete" and not all(name in past.values for name in self._names):
            return TrialState.FAIL
        return STATES.get(past.state, TrialState.RUNNING)

    def _frozen(self, past: TrialHistory) -> FrozenTrial:
        state, values = self._state(past), None
        if state == TrialState.COMPLETE:
            values = [past.values[name] for name in self._names]
        scores = {} if len(self._names) > 1 else past.scores
        reported = {epoch: self._signed(score) for epoch, score in scores.items()}
        if state == TrialState.PRUNED and reported:  # as Optuna does
            values = [reported[max(reported)]]
        violations = self._violations(past.values)
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

    def _signed(self, score: float) -> float:
        """Return the objective's own value of a score."""
        return improvement(score, self._directions[self._names[0]])

    def note(self, trial: Trial, epoch: int, score: float) -> None:
        """Note an epoch's score; more is better."""
        if len(self._names) > 1:
            return  # Optuna keeps no intermediate values of several objectives; the ledger does
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch not in known:  # a resumed trial may repeat its last epoch
            trial.report(self._signed(score), epoch)

    def tell(self, trial: Trial, state: str, values: Mapping[str, float]) -> None:
        """Note how a trial ended; a complete one without a finite value counts as failed."""
        told = [values.get(name, math.nan) for name in self._names]
        for name in dict.fromkeys((*self._names, *(c.name for c in self._constraints))):
            if math.isfinite(values.get(name, math.nan)):
                trial.set_user_attr(name, values[name])
        for name, violations in self._violations(values).items():
            trial.set_user_attr(name, violations)
        if state == "complete" and all(map(math.isfinite, told)):
            trial.study.tell(trial, told)
        elif state == "pruned":
            trial.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.study.tell(trial, state=TrialState.FAIL)

    def _violations(self, values: Mapping[str, float]) -> dict[str, list[float]]:
        """How far each constraint is violated, as an attribute of Optuna's; none without them."""
        if not self._constraints:
            return {}
        # Optuna's samplers want finite numbers; a missing value is violated beyond doubt.
        return {"violations": [min(c.violation(values), 1e9) for c in self._constraints]}

    def best(
        self, method: str, count: int | None = None, values: Mapping[str, Any] | None = None
    ) -> list[FrozenTrial]:
        """Return the best complete trials of a method, best first.

        Those that violate a constraint are left out; of several objectives, the Pareto front is
        returned, in the order of the first.

        Args:
            method: its name.
            count: trials at most; None: all.
            values: that the trials have to have.
        """
        complete = self[method].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        complete = [trial for trial in complete if has(trial, values or {})]
        kept = [t for t in complete if all(v <= 0 for v in t.user_attrs.get("violations", ()))]
        directions = self._directions.values()
        scores = {t.number: list(map(improvement, t.values, directions)) for t in kept}
        if len(directions) > 1:
            kept = [
                t for t in kept if not any(_dominates(o, scores[t.number]) for o in scores.values())
            ]
        return sorted(kept, key=lambda t: (-scores[t.number][0], t.number))[:count]


class _OtherStoryError(Exception):
    """The journal tells another story than the ledger."""


def violations(frozen: FrozenTrial) -> Sequence[float]:
    """Return how far a trial violates its constraints; what samplers ask for."""
    found: Sequence[float] = frozen.user_attrs["violations"]
    return found


def has(trial: FrozenTrial, values: Mapping[str, Any]) -> bool:
    """Whether a trial has these values, of those that it draws."""
    return all(trial.params.get(name, value) == value for name, value in values.items())


def number_of(trial_id: str) -> int:
    """Return the number of a search trial among those of its method."""
    return int(trial_id.rsplit("-", 1)[1])


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is at least as good in every respect and better in some."""
    return all(a >= b for a, b in zip(one, other)) and any(a > b for a, b in zip(one, other))
