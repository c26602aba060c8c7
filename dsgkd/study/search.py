"""What should be tried next? Optuna asked and told, one study for each method.

Each method is searched by a sampler of its own and gets the same number of trials, so none is
tuned better than another. A trial that the scheduler stopped is PRUNED with its intermediate
values (stock OptunaSearch records it as COMPLETE at low fidelity), a failed one is FAIL, and what
was running when the driver died is asked for again with the same values. The journal file in the
study's folder is the only state: `optuna-dashboard` reads it, and resuming reads it too.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from dsgkd.training.run import RunConfig

# Multivariate, grouped TPE has been "experimental" for years; a study need not say so every time.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

Suggest = Callable[[Trial, str], RunConfig]


@dataclass(frozen=True)
class Candidate:
    """A configuration to try."""

    trial_id: str
    method: str
    run: RunConfig


class Search:
    """Ask-and-tell search over several methods, taking turns.

    Args:
        journal: file that holds the search's whole state.
        name: the study's name; each method's Optuna study is called `name/method`.
        budgets: method -> number of trials.
        suggest: draws a run for a method from an Optuna trial.
        first: method -> values to try first.
        seed: decides what the samplers draw.
    """

    def __init__(
        self,
        journal: Path,
        name: str,
        budgets: Mapping[str, int],
        suggest: Suggest,
        first: Mapping[str, Mapping[str, object]],
        seed: int,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._suggest, self._budgets = suggest, dict(budgets)
        self._asked: dict[str, Trial] = {}
        self._interrupted: list[tuple[str, Trial]] = []
        self._studies: dict[str, optuna.Study] = {}
        storage = JournalStorage(JournalFileBackend(str(journal)))
        for index, method in enumerate(self._budgets):
            study = optuna.create_study(
                storage=storage,
                study_name=f"{name}/{method}",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner(),  # the scheduler of Tune prunes
            )
            # The sampler's draws depend on how many trials went before, not on this process.
            study.sampler = optuna.samplers.TPESampler(
                seed=seed + 1009 * index + 9176 * len(study.trials),
                multivariate=True,
                group=True,
                n_startup_trials=4,
                constant_liar=True,
            )
            if not study.trials and method in first:
                study.enqueue_trial(dict(first[method]))
            self._studies[method] = study
            self._interrupted += [
                (method, Trial(study, trial._trial_id))
                for trial in study.get_trials(states=(TrialState.RUNNING,))
            ]

    def ask(self) -> Candidate | None:
        """Return the next configuration, the methods taking turns; None when all is asked."""
        if self._interrupted:
            method, trial = self._interrupted.pop(0)
        else:
            counts = {method: self._count(method) for method in self._budgets}
            open_methods = [m for m, budget in self._budgets.items() if counts[m] < budget]
            if not open_methods:
                return None
            method = min(open_methods, key=counts.__getitem__)
            trial = self._studies[method].ask()
        trial_id = f"search-{method}-{trial.number:03d}"
        self._asked[trial_id] = trial
        return Candidate(trial_id, method, self._suggest(trial, method))

    def _count(self, method: str) -> int:
        asked = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return len(self._studies[method].get_trials(deepcopy=False, states=asked))

    def report(self, trial_id: str, epoch: int, score: float) -> None:
        """Record an intermediate value; a value that is no number is left out."""
        if math.isfinite(score):
            self._asked[trial_id].report(score, epoch)

    def tell(self, trial_id: str, state: str, score: float | None) -> None:
        """Record how a trial ended: `complete`, `pruned` or `failed`.

        A complete trial without a finite score counts as failed. Anything else (pre-empted,
        interrupted) leaves it running, to be asked for again.
        """
        trial = self._asked[trial_id]
        if state == "complete" and score is not None and math.isfinite(score):
            trial.study.tell(trial, score)
        elif state == "pruned":
            trial.study.tell(trial, state=TrialState.PRUNED)
        elif state in ("failed", "complete"):
            trial.study.tell(trial, state=TrialState.FAIL)

    def best(self, method: str) -> RunConfig | None:
        """Return the best complete configuration of a method; None if no trial completed."""
        study = self._studies[method]
        complete: Sequence[optuna.trial.FrozenTrial] = study.get_trials(
            states=(TrialState.COMPLETE,)
        )
        if not complete:
            return None
        best = max(complete, key=lambda trial: trial.value or 0.0)
        frozen = optuna.trial.FixedTrial(best.params)
        return self._suggest(frozen, method)  # type: ignore[arg-type]
