"""The status of a study, kept up to date from messages or read from a ledger.

Importing this needs neither Ray nor torch; `status_table` draws what stands here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.study.status.hyperparameters import Settings, differing, settings_of

ENDED = ("complete", "pruned", "failed")
"""States after which a trial is not run again."""

_PART_OF = {"control": "confirm"}
LINK = "link"
"""Stage of trials that make an artefact for others, within the stage of those."""


@dataclass(frozen=True)
class TrialLine:
    """One attempt at a trial."""

    trial_id: str
    attempt: int
    stage: str
    method: str
    state: str
    settings: Settings
    epoch: int
    """Epochs that were finished."""
    best: float | None
    """Best value of the study's measure on validation so far."""
    workers: int
    worker_seconds: float
    """As of the last report."""
    gpu_seconds: float
    started: datetime
    ended: datetime | None
    """None: it runs."""
    reason: str
    shown_in: str
    """The stage that it is run in: links in that of the trials that need them, controls beside the
    confirmation."""
    stuck: bool = False
    """It never left the chance level."""

    @property
    def seconds(self) -> float:
        """How long it had run when it last reported."""
        return self.worker_seconds / max(self.workers, 1)


@dataclass(frozen=True)
class StageStatus:
    """A stage of a study at one moment."""

    study: str
    stage: str
    measure: str
    direction: str
    """`maximise` or `minimise` the measure."""
    epochs: int
    """The most that a trial of this stage may run."""
    total: int | None
    """Trials of the stage; None: not known."""
    done: int
    """Trials of the stage that ended and are not run again."""
    trials: tuple[TrialLine, ...]
    """The stage's attempts in the order in which they were started."""
    worker_seconds: float
    """Spent by all stages."""
    gpu_seconds: float
    price_per_gpu_hour: float
    """In the user's currency; 0: no price was given."""
    at: datetime

    @cached_property
    def latest(self) -> tuple[TrialLine, ...]:
        """The last attempt of each trial."""
        last = {line.trial_id: line for line in self.trials}
        return tuple(last.values())

    @property
    def running(self) -> tuple[TrialLine, ...]:
        """Trials that are running, the first started in front."""
        return tuple(line for line in self.latest if line.state == "running")

    @cached_property
    def rows(self) -> tuple[TrialLine, ...]:
        """Running trials, then the others, the one that ended last in front."""
        over = [line for line in self.latest if line.state != "running"]
        over.sort(key=lambda line: line.ended or line.started, reverse=True)
        return (*self.running, *over)

    @cached_property
    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Trial -> in what it differs from the others of its method."""
        groups: dict[tuple[str, str], list[TrialLine]] = defaultdict(list)
        for line in self.latest:
            groups[line.stage, line.method].append(line)
        return {
            line.trial_id: parts
            for group in groups.values()
            for line, parts in zip(group, differing([line.settings for line in group]))
        }

    @cached_property
    def best(self) -> dict[str, float]:
        """Method -> best value so far of its complete and running trials; the best in front."""
        found: dict[str, float] = {}
        for line in self.latest:
            if line.best is not None and line.state in ("complete", "running"):
                known = found.get(line.method, line.best)
                found[line.method] = max(line.best, known, key=self._score)
        return dict(sorted(found.items(), key=lambda item: -self._score(item[1])))

    def _score(self, value: float) -> float:
        return -value if self.direction == "minimise" else value

    @property
    def price(self) -> float:
        """What the study has cost so far."""
        return self.gpu_seconds / 3600 * self.price_per_gpu_hour

    # Times are in seconds, and guesses.

    @cached_property
    def _seconds(self) -> dict[str, list[float]]:
        """How long trials take, over all of their attempts; the key is a method, "" is any."""
        spent: dict[str, float] = defaultdict(float)
        for line in self.trials:
            spent[line.trial_id] += line.seconds
        found: dict[str, list[float]] = defaultdict(list)
        for line in self.latest:
            if line.state in ("complete", "pruned"):  # what fails often fails at once
                found[line.method].append(spent[line.trial_id])
        ended = [seconds for group in found.values() for seconds in group]
        return found | {"": ended or self._projected}

    @property
    def _projected(self) -> list[float]:
        """How long the running trials will take if they take as long as until now."""
        return [line.seconds / line.epoch * self.epochs for line in self.running if line.epoch > 0]

    def _mean_seconds(self, method: str = "") -> float | None:
        known = self._seconds.get(method) or self._seconds[""]
        return sum(known) / len(known) if known else None

    def trial_left(self, line: TrialLine) -> float | None:
        """Seconds until a running trial ends if it is not stopped early; None: nobody knows."""
        if line.state != "running":
            return None
        ran = max((self.at - line.started).total_seconds(), 0.0)
        # A trial that goes on from a checkpoint did its first epochs in another attempt.
        before = [one for one in self.trials if one.trial_id == line.trial_id and one is not line]
        first = max((one.epoch for one in before), default=0)
        if line.epoch > first:
            an_epoch = line.seconds / (line.epoch - first)
            return max(line.seconds + an_epoch * (self.epochs - line.epoch) - ran, 0.0)
        mean = self._mean_seconds(line.method)
        if mean is None:
            return None
        return max(mean * (1 - first / max(self.epochs, 1)) - ran, 0.0)

    @property
    def left(self) -> float | None:
        """Seconds until the stage ends if as many trials go on at a time; None: nobody knows."""
        if self.total is None:
            return None
        waiting = max(self.total - self.done - len(self.running), 0)
        if not waiting and not self.running:
            return 0.0
        under_way = [self.trial_left(line) for line in self.running]
        known = [seconds for seconds in under_way if seconds is not None]
        mean = self._mean_seconds()
        if len(known) < len(under_way) or (waiting and mean is None):
            return None
        work = sum(known) + waiting * (mean or 0.0)
        return max(work / max(len(self.running), 1), max(known, default=0.0))


def ended_trials(lines: Iterable[TrialLine]) -> int:
    """How many trials ended and are not run again; links are not counted."""
    return len({line.trial_id for line in lines if line.state in ENDED and line.stage != LINK})


@dataclass(frozen=True)
class StudyStatus:
    """Everything that the commands say of a study in a ledger."""

    stage: StageStatus
    """The stage that was begun last."""
    lines: tuple[TrialLine, ...]
    """The attempts of all stages in the order in which they were started."""
    readings: tuple[str, ...]
    """One line for each time that the test split was opened."""
    others: int
    """Other studies in the same ledger."""

    def begun(self, stage: str, total: int, done: int) -> StageStatus:
        """Return a stage that is about to go on; whoever still ran a trial of it is gone."""
        ours = (line for line in self.lines if line.shown_in == stage)
        gone = (replace(one, state="preempted") if one.state == "running" else one for one in ours)
        return replace(self.stage, stage=stage, total=total, done=done, trials=tuple(gone))


def read_status(ledger: Ledger, price_per_gpu_hour: float | None = None) -> StudyStatus:
    """Read how the newest study of a ledger stands.

    Raises:
        InputError: there is no study in it.
    """
    studies = sorted(ledger.rows("studies"), key=lambda row: str(row["created_at"]))
    if not studies:
        raise InputError(ledger.root, "no study was begun here", "name the folder of a study")
    study = studies[-1]
    rows = [
        row
        for row in ledger.rows("trials")
        if row["study_id"] == study["study_id"] and row["started_at"] is not None
    ]
    budget, configuration = study["budget"] or {}, study["configuration"] or {}
    if price_per_gpu_hour is None:
        price_per_gpu_hour = configuration.get("budget", {}).get("price_per_gpu_hour") or 0.0
    lines = lines_of(rows)
    first = "confirm" if budget.get("trials") == 0 else "search"
    name = lines[-1].shown_in if lines else first
    ours = tuple(line for line in lines if line.shown_in == name)
    stage = StageStatus(
        study=study["name"] or study["study_id"],
        stage=name,
        measure=study["objective"],
        direction=(study["measures"] or {}).get(study["objective"], "maximise"),
        epochs=budget.get("epochs") or max((line.epoch for line in lines), default=0),
        total=_total(name, budget, len(study["arms"] or ()), lines),
        done=ended_trials(ours),
        trials=ours,
        worker_seconds=sum(line.worker_seconds for line in lines),
        gpu_seconds=sum(line.gpu_seconds for line in lines),
        price_per_gpu_hour=price_per_gpu_hour,
        at=datetime.now(UTC),
    )
    readings = tuple(
        _reading(row) for row in ledger.rows("test_reads") if row["study_id"] == study["study_id"]
    )
    others = len({row["study_id"] for row in studies}) - 1
    return StudyStatus(stage, lines, readings, others)


def _reading(row: Mapping[str, Any]) -> str:
    state = "complete" if row["closed_at"] else "not finished"
    return f"{row['opened_at'].astimezone():%Y-%m-%d %H:%M}, {state}, {row['reason']}"


def _total(
    stage: str, budget: Mapping[str, Any], arms: int, lines: Sequence[TrialLine]
) -> int | None:
    """How many trials a stage has, as far as the ledger tells."""
    if stage == "test":
        confirmed = [ln for ln in lines if ln.shown_in == "confirm" and ln.stage != LINK]
        return len({line.trial_id for line in confirmed if line.state == "complete"})
    if stage == "confirm" and "confirm_top" in budget:
        total: int = budget["confirm_top"] * budget["confirm_seeds"] * arms
        return total
    return budget.get("trials") if stage == "search" else None


def lines_of(rows: Iterable[Mapping[str, Any]]) -> tuple[TrialLine, ...]:
    """Return a ledger's rows of `trials` as lines, in the order in which they were started.

    An attempt that was followed by another is over, whatever its row says: whoever ran it could
    not write any more.
    """
    trials = sorted(rows, key=lambda row: (row["started_at"], row["trial_id"], row["attempt"]))
    last = {row["trial_id"]: row["attempt"] for row in trials}
    stages = [_PART_OF.get(row["stage"], row["stage"]) for row in trials]
    shown = next((stage for stage in reversed(stages) if stage != LINK), "search")
    lines = []
    for row, stage in zip(reversed(trials), reversed(stages)):
        shown = shown if stage == LINK else stage  # a link comes before what needs it
        lines.append(_line(row, shown, last[row["trial_id"]] == row["attempt"]))
    return tuple(reversed(lines))


def _line(row: Mapping[str, Any], shown_in: str, is_last: bool) -> TrialLine:
    lost = row["state"] == "running" and not is_last
    return TrialLine(
        trial_id=row["trial_id"],
        attempt=row["attempt"],
        stage=row["stage"] or "",
        method=row["method"] or "",
        state="preempted" if lost else row["state"],
        settings=settings_of(row["configuration"] or {}),
        epoch=row["epochs_done"] or 0,
        best=row["objective"],
        workers=row["workers"] or 1,
        worker_seconds=row["worker_seconds"] or 0.0,
        gpu_seconds=row["gpu_seconds"] or 0.0,
        started=row["started_at"],
        ended=row["ended_at"],
        reason=row["reason"] or "",
        shown_in=shown_in,
        stuck=bool(row.get("stuck")),
    )
