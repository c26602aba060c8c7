"""Early stopping: the trials that are not worth going on with, asked after every epoch.

Optuna's pruners decide, on a record of their own that holds one number an epoch for each trial.
The record is nothing but the reports: whoever reads them back from a ledger, in any order of
trials, has the very state that a study had when it was interrupted. Epochs are counted by the
trials, so a resumed trial stands on the rung that it had reached. And because the record has one
number an epoch, studies with several objectives can be pruned too, by the first.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.history import TrialHistory
from dsgkd.study.messages import Charge, EpochFinished, TrialEnded
from dsgkd.study.search.config import PruningConfig
from dsgkd.study.search.rungs import CURVES, FirstRung, first_rung
from dsgkd.study.spec import TrialSpec

_NEVER = datetime.max.replace(tzinfo=UTC)


class PruningCallback(TrialCallback):
    """Stops trials early, those of each method among themselves.

    Where the first rung is chosen from curves, no trial is stopped before it is, and then only
    trials of methods of which `startup_trials` are whole.

    Args:
        config: the rule, without `auto`.
        epochs: the most that a trial may run.
        past: search trials from before this start of the study.
        rung: the first rung, where it was chosen before.
        on_choice: is told of it when it is chosen.
    """

    def __init__(
        self,
        config: PruningConfig,
        epochs: int,
        past: Iterable[TrialHistory] = (),
        rung: FirstRung | None = None,
        on_choice: Callable[[FirstRung], None] = lambda rung: None,
    ) -> None:
        self._config, self._epochs, self._on_choice = config, epochs, on_choice
        self._chooses = config.grace_epochs == 0 and config.scheduler != "none"
        self.rung = rung if self._chooses else None
        """The first rung that was chosen from curves; None: none was, or not yet."""
        self._record: dict[str, _Trial] = {}
        self._stoppers: dict[str, EarlyStopper] = {}
        self._whole: dict[str, list[Sequence[float]]] = defaultdict(list)
        # Trials that were cut off come last: what is decided about them then knows all the others,
        # as it would have if the study had gone on.
        for trial in sorted(past, key=_when_ended):
            for epoch, score in trial.scores.items():
                self._report(trial.trial_id, trial.method, epoch, score)
            if trial.finished:
                self._end(trial.trial_id, trial.method, trial.state)

    def on_epoch(self, spec: TrialSpec, epoch: EpochFinished, charge: Charge) -> None:
        """Note a trial's score."""
        if spec.stage == "search":
            self._report(spec.trial_id, spec.method, epoch.epoch, epoch.score)

    def on_end(self, spec: TrialSpec, end: TrialEnded) -> None:
        """Note that a trial is over."""
        if spec.stage == "search":
            self._end(spec.trial_id, spec.method, end.state)

    def should_stop(self, spec: TrialSpec) -> bool:
        """Whether a trial's last score is too low to go on."""
        stopper = self._of(spec.method)
        if stopper is None:
            return False
        if self._chooses and len(self._whole[spec.method]) < self._config.startup_trials:
            return False
        return stopper.should_stop(spec.trial_id)

    def _of(self, method: str) -> "EarlyStopper | None":
        """Return what stops a method's trials; None: nothing does, or not yet."""
        config = self._config
        if self._chooses:
            if self.rung is None or not self.rung.epoch:
                return None
            config = replace(config, grace_epochs=self.rung.epoch)
        if method not in self._stoppers:
            stopper = self._stoppers[method] = EarlyStopper(config, self._epochs)
            # What was reported before the choice, as if it were reported now.
            for trial_id, trial in self._record.items():
                if trial.method == method:
                    trial.replay(trial_id, stopper)
        return self._stoppers[method]

    def _report(self, trial_id: str, method: str, epoch: int, score: float) -> None:
        if stopper := self._of(method):
            stopper.report(trial_id, epoch, score)
        trial = self._record.setdefault(trial_id, _Trial(method))
        trial.scores.setdefault(epoch, score)

    def _end(self, trial_id: str, method: str, state: str) -> None:
        if stopper := self._of(method):
            stopper.end(trial_id, state)
        trial = self._record.setdefault(trial_id, _Trial(method))
        trial.state = state
        if state != "complete" or not trial.scores:
            return
        last = max(trial.scores)
        self._whole[method].append([trial.scores.get(e, math.nan) for e in range(1, last + 1)])
        if self._chooses and self.rung is None and sum(map(len, self._whole.values())) >= CURVES:
            self.rung = first_rung(self._whole)
            self._on_choice(self.rung)


@dataclass
class _Trial:
    """What was reported of a trial."""

    method: str
    scores: dict[int, float] = field(default_factory=dict)
    state: str = ""

    def replay(self, trial_id: str, stopper: "EarlyStopper") -> None:
        for epoch, score in self.scores.items():
            stopper.report(trial_id, epoch, score)
        if self.state:
            stopper.end(trial_id, self.state)


def _when_ended(trial: TrialHistory) -> tuple[bool, datetime, str]:
    """Return what sorts trials by their end, those that are not over last."""
    return not trial.finished, trial.row.get("ended_at") or _NEVER, trial.trial_id


class EarlyStopper:
    """The reports of one method's trials, and what they say of each trial's chances.

    Args:
        config: the rule, without `auto` and with a first rung.
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
