"""What is run after the search: the best configurations again, on seeds that it never used.

Without a search, these are the configurations that were declared.

All methods share these seeds, so that differences can be paired by seed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from dsgkd.study.config import StudyConfig
from dsgkd.study.history import TrialHistory
from dsgkd.study.spec import PlannedTrial

FIRST_SEED = 1000
"""Seeds of confirmation begin so far above the study's."""
_ORDER = ("baseline", "method", "control")


class Configurations(Protocol):
    """Where the configurations come from that are confirmed."""

    def best(self, method: str, count: int = 1) -> list[PlannedTrial]:
        """Return the best of a method, best first."""
        ...


def confirmation(config: StudyConfig, search: Configurations) -> Iterator[PlannedTrial]:
    """Yield the runs of confirmation, seed by seed, the methods side by side."""
    best = winners(config, search)
    for index in range(config.confirmation.seeds):
        for method, candidates in best.items():
            stage = "control" if config.arms[method].role == "control" else "confirm"
            for candidate in candidates:
                number = candidate.trial_id.rpartition("-")[2]
                run = replace(candidate.run, seed=config.seed + FIRST_SEED + index)
                name = f"confirm-{method}-{number}-{index:03d}"
                yield PlannedTrial(stage, method, name, run, candidate.trial_id)


def runs_by_searched_method(config: StudyConfig) -> Counter[str]:
    """Return how many runs of confirmation cost as much as a whole search trial of each method."""
    runs: Counter[str] = Counter()
    for method in config.arms:
        searched_as = method if method in config.searched else _distillation(config)
        runs[searched_as] += config.confirmation.top * config.confirmation.seeds
    return runs


def winners(config: StudyConfig, search: Configurations) -> dict[str, list[PlannedTrial]]:
    """Return the configurations that are confirmed, by method, the baseline first.

    A control that was not searched is given the best configurations of distillation.
    """
    top, arms = config.confirmation.top, config.arms
    found = {method: search.best(method, top) for method in config.searched}
    for method, arm in arms.items():
        if method not in found:
            found[method] = [
                replace(candidate, method=method, run=arm.applied(candidate.run))
                for candidate in found[_distillation(config)]
            ]
    order = sorted(found, key=lambda method: _ORDER.index(arms[method].role))
    return {method: found[method] for method in order}


def unread(past: Mapping[str, TrialHistory], since: datetime | None = None) -> list[TrialHistory]:
    """Return the confirmed runs that have not read the test split yet.

    Args:
        past: what the ledger knows.
        since: readings before this do not count; None: any counts.
    """
    have_read = {
        trial.parent
        for trial in past.values()
        if trial.stage == "test" and trial.state == "complete"
        if since is None or trial.row["started_at"] >= since
    }
    return [
        trial
        for trial in past.values()
        if trial.stage in ("confirm", "control") and trial.state == "complete"
        if trial.trial_id not in have_read
    ]


def _distillation(config: StudyConfig) -> str:
    """Return the name of the method whose configurations the controls borrow."""
    return next(method for method, arm in config.arms.items() if arm.role == "method")
