"""Early stopping: the trials that are not worth going on with, asked after every epoch.

Optuna's pruners decide, on a record of their own that holds one number an epoch for each trial.
The record is nothing but the reports: whoever reads them back from a ledger, in any order of
trials, has the very state that a study had when it was interrupted. Epochs are counted by the
trials, so a resumed trial stands on the rung that it had reached. And because the record has one
number an epoch, studies with several objectives can be pruned too, by the first.
"""

import math
import zlib
from collections.abc import Iterable

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.history import TrialHistory
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.spec import TrialSpec


class PruningCallback(TrialCallback):
    """Stops trials early, those of each method among themselves.

    Args:
        config: the rule.
        epochs: the most that a trial may run.
        past: search trials from before this start of the study.
    """

    def __init__(
        self, config: PruningConfig, epochs: int, past: Iterable[TrialHistory] = ()
    ) -> None:
        self._config, self._epochs = config, epochs
        self._stoppers: dict[str, EarlyStopper] = {}
        # Trials that were cut off come last: what is decided about them then knows all the others,
        # as it would have if the study had gone on.
        for trial in sorted(past, key=lambda trial: not trial.finished):
            stopper = self._of(trial.method)
            for epoch, score in trial.scores.items():
                stopper.report(trial.trial_id, epoch, score)
            if trial.finished:
                stopper.end(trial.trial_id, trial.state)

    def _of(self, method: str) -> "EarlyStopper":
        if method not in self._stoppers:
            self._stoppers[method] = EarlyStopper(self._config, self._epochs)
        return self._stoppers[method]

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note a trial's score."""
        if spec.stage == "search":
            self._of(spec.method).report(spec.trial_id, epoch.epoch, epoch.score)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Note that a trial is over."""
        if spec.stage == "search":
            self._of(spec.method).end(spec.trial_id, end.state)

    def should_stop(self, spec: TrialSpec) -> bool:
        """Whether a trial's last score is too low to go on."""
        return self._of(spec.method).should_stop(spec.trial_id)


class EarlyStopper:
    """The reports of one method's trials, and what they say of each trial's chances.

    Args:
        config: the rule.
        epochs: the most that a trial may run.
    """

    def __init__(self, config: PruningConfig, epochs: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._brackets = [_Bracket(pruner) for pruner in _pruners(config, epochs)]
        self._shares = _shares(len(self._brackets), config.reduction_factor)

    def report(self, trial_id: str, epoch: int, score: float) -> None:
        """Note a trial's score (more is better) after an epoch, counted from 1."""
        self._of(trial_id).report(trial_id, epoch, score)

    def should_stop(self, trial_id: str) -> bool:
        """Whether the trial's last report is too low to go on."""
        return self._of(trial_id).should_stop(trial_id)

    def end(self, trial_id: str, state: str) -> None:
        """Note that a trial is over; `complete` ones are what `median` compares with."""
        self._of(trial_id).end(trial_id, state)

    def _of(self, trial_id: str) -> "_Bracket":
        # By the trial's name alone, so that it is the same bracket after an interruption.
        draw = zlib.crc32(trial_id.encode()) % sum(self._shares)
        for bracket, share in zip(self._brackets, self._shares):
            if draw < share:
                return bracket
            draw -= share
        raise AssertionError("the draw is below the sum of the shares")


class _Bracket:
    """A record for one pruner."""

    def __init__(self, pruner: BasePruner) -> None:
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._trials: dict[str, Trial] = {}
        self._epochs: dict[str, int] = {}
        self._hopeless: set[str] = set()

    def report(self, trial_id: str, epoch: int, score: float) -> None:
        # A score that is no number is no report; an epoch that a resumed trial repeats is none.
        if not math.isfinite(score) or epoch <= self._epochs.get(trial_id, 0):
            return
        if trial_id not in self._trials:
            self._trials[trial_id] = self._study.ask()
        self._epochs[trial_id] = epoch
        self._trials[trial_id].report(score, epoch)
        # Asked once for each report: asking is also how a pruner notes that a rung was reached.
        if self._trials[trial_id].should_prune():
            self._hopeless.add(trial_id)
        else:
            self._hopeless.discard(trial_id)

    def should_stop(self, trial_id: str) -> bool:
        return trial_id in self._hopeless

    def end(self, trial_id: str, state: str) -> None:
        if trial_id in self._trials and state in ("complete", "pruned", "failed"):
            trial = self._trials.pop(trial_id)
            if state == "complete":
                last = self._study.get_trials(deepcopy=False)[trial.number]
                self._study.tell(trial, last.intermediate_values[self._epochs[trial_id]])
            else:
                self._study.tell(trial, state=TrialState.FAIL)


def _pruners(config: PruningConfig, epochs: int) -> list[BasePruner]:
    grace, factor = config.grace_epochs, config.reduction_factor
    if config.scheduler == "none":
        return [NopPruner()]
    if config.scheduler == "median":
        return [MedianPruner(n_startup_trials=config.startup_trials, n_warmup_steps=grace - 1)]
    brackets = 1
    if config.scheduler == "hyperband":
        brackets = 1 + int(math.log(max(epochs / grace, 1), factor) + 1e-9)
    return [
        SuccessiveHalvingPruner(
            min_resource=grace, reduction_factor=factor, min_early_stopping_rate=first_rung
        )
        for first_rung in range(brackets)
    ]


def _shares(brackets: int, factor: int) -> list[int]:
    """Trials of each bracket in a round of Hyperband: n in Algorithm 1 of Li et al., JMLR 2018."""
    most = brackets - 1
    return [math.ceil(brackets / (s + 1) * factor**s) for s in range(most, -1, -1)]
