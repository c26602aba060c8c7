"""What is run after the search? The best configurations on fresh seeds, then the test split, once.

Confirmation trains the best configurations of every method again, with seeds that the search never
used and that all methods share, so that differences can be paired by seed. The test stage reads the
test split with the weights that confirmation left. Until then no trial opens that split: `SEALED`
are the splits that a study reads.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dsgkd.ledger import Ledger
from dsgkd.study.config import StudyConfig
from dsgkd.study.history import TrialHistory
from dsgkd.study.search.arms import MLKD
from dsgkd.study.search.search import Candidate, Search
from dsgkd.training.run import RunConfig

FIRST_SEED = 1000
"""Seeds of confirmation begin so far above the study's."""

Planned = tuple[str, str, str, RunConfig]
"""Stage, method, name of the trial, and its run."""


def confirmation(config: StudyConfig, search: Search) -> Iterator[Planned]:
    """Yield the runs of confirmation, seed by seed, the methods side by side."""
    best = winners(config, search)
    for index in range(config.confirmation.seeds):
        for method, candidates in best.items():
            stage = "control" if config.arms[method].is_control else "confirm"
            for candidate in candidates:
                number = candidate.trial_id.rsplit("-", 1)[1]
                run = replace(candidate.run, seed=config.seed + FIRST_SEED + index)
                yield stage, method, f"confirm-{method}-{number}-{index:03d}", run


def runs_by_searched_method(config: StudyConfig) -> Counter[str]:
    """Return how many runs of confirmation cost as much as a whole search trial of each method."""
    runs: Counter[str] = Counter()
    for method in config.arms:
        searched_as = method if method in config.searched else MLKD
        runs[searched_as] += config.confirmation.top * config.confirmation.seeds
    return runs


def winners(config: StudyConfig, search: Search) -> dict[str, list[Candidate]]:
    """Return the configurations that are confirmed, by method, the baseline first.

    A control that was not searched is given the best configurations of distillation.
    """
    top = config.confirmation.top
    found = {method: search.best(method, top) for method in config.searched}
    for method, arm in config.arms.items():
        if method not in found:
            found[method] = [
                replace(candidate, method=method, run=arm.applied(candidate.run))
                for candidate in found[MLKD]
            ]
    order = sorted(found, key=lambda method: (config.arms[method].is_control, method != "plain"))
    return {method: found[method] for method in order}


def readable(past: Mapping[str, TrialHistory], since: datetime | None = None) -> list[TrialHistory]:
    """Return the confirmed runs that have not read the test split yet.

    Args:
        past: what the ledger knows.
        since: readings before this do not count; None: any counts.
    """

    def has_read(trial: TrialHistory) -> bool:
        test = past.get(test_name(trial.trial_id))
        if test is None or test.state != "complete":
            return False
        return since is None or test.row["started_at"] >= since

    return [
        trial
        for trial in past.values()
        if trial.stage in ("confirm", "control")
        and trial.state == "complete"
        and not has_read(trial)
    ]


def test_name(confirmed: str) -> str:
    """Return the name of the trial in which a confirmed run reads the test split."""
    return "test-" + confirmed.removeprefix("confirm-")


def confirmed_name(test: str) -> str:
    """Return the name of the confirmed run whose weights a test trial reads with."""
    return "confirm-" + test.removeprefix("test-")


class TestAccess:
    """The seal on the test split; every breaking is a row of the ledger's `trials`.

    Args:
        ledger: the study's.
        study_id: the study.
        past: what the ledger knows.
    """

    def __init__(self, ledger: Ledger, study_id: str, past: Mapping[str, TrialHistory]) -> None:
        self._ledger, self._study_id = ledger, study_id
        self._breakings = sorted(name for name in past if name.startswith("seal-"))
        self._open = [name for name in self._breakings if past[name].state == "running"]
        self._row: dict[str, Any] = past[self._open[-1]].row if self._open else {}

    @property
    def times(self) -> int:
        """How often it was broken."""
        return len(self._breakings)

    @property
    def opened(self) -> datetime | None:
        """When the reading began that has not ended yet; None where there is none."""
        moment: datetime | None = self._row.get("started_at") if self._open else None
        return moment

    def open(self, models: int, fingerprint: str) -> None:
        """Write down that the test split is about to be read, before it is.

        Args:
            models: how many models will read it.
            fingerprint: of the data with the test split.
        """
        if not self._open:
            self._breakings.append(f"seal-{self.times + 1:03d}")
            self._row = {
                "study_id": self._study_id,
                "trial_id": self._breakings[-1],
                "attempt": 1,
                "stage": "test",
                "started_at": datetime.now(UTC),
            }
        self._write("running", f"{models} models read the test split", fingerprint)

    def close(self, models: int, fingerprint: str) -> None:
        """Write down that the reading is over."""
        self._row["ended_at"] = datetime.now(UTC)
        self._write("complete", f"{models} models read the test split", fingerprint)

    def _write(self, state: str, reason: str, fingerprint: str) -> None:
        self._row |= {
            "state": state,
            "reason": reason,
            "other": {"data_fingerprint": fingerprint},
        }
        self._ledger.write("trials", [self._row], f"{self._row['trial_id']}-1")
