"""Which trials make up a study? Those of the search, then confirmation, then the test split.

Every stage is made when the one before is over, from what the ledger says of it.
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dsgkd.configuration import structure
from dsgkd.data.sources import SEALED, SPLITS
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.callbacks.progress import Say, StageInfo, progress, with_past
from dsgkd.study.config import StudyConfig
from dsgkd.study.confirmation import (
    Planned,
    TestAccess,
    confirmation,
    confirmed_name,
    readable,
    runs_by_searched_method,
)
from dsgkd.study.confirmation import test_name as name_of_test
from dsgkd.study.cost.budget import BudgetCallback, Reserve
from dsgkd.study.dispatcher import Stage, TrialCallback
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.objectives import Constraint
from dsgkd.study.search.arms import RANDOM_TEACHER
from dsgkd.study.search.search import Search
from dsgkd.study.trial import OWN_TEACHER, TrialSpec
from dsgkd.training.run import RunConfig, open_table


@dataclass
class Outcome:
    """How a study ended."""

    limit: str | None = None
    """The limit that was reached, for people."""
    tested: bool = False
    """Whether the test split has been read by all that was confirmed."""


class Stages:
    """The stages of one study.

    Args:
        config: the study.
        record: what its ledger says.
        meter: what was spent.
        outcome: how the study ended; filled in here.
        say: takes lines for people.
        live: show a table of the trials, where standard output is a terminal.
    """

    def __init__(
        self,
        config: StudyConfig,
        record: StudyManifest,
        meter: BudgetCallback,
        outcome: Outcome,
        say: Say,
        live: bool,
    ) -> None:
        self._config, self._record, self._meter = config, record, meter
        self._outcome, self._say, self._live = outcome, say, live

    def of(
        self, search: Search, concurrent: int, callbacks: Sequence[TrialCallback]
    ) -> Generator[Stage, None, None]:
        """Yield the stages; what stands after a `yield` happens when that stage is over."""
        yield from self._followed(self._search_stage(search, concurrent), callbacks)
        planned = list(confirmation(self._config, search))
        confirmed = {method for _, method, _, _ in planned}
        for method in self._config.arms:
            if method not in confirmed and not self._outcome.limit:
                self._say(f"WARNING: no search trial of {method} was completed; it is left out")
        if self._outcome.limit and len(confirmed) < len(self._config.arms):
            return  # nothing to compare yet
        # A part of the budget was kept for what follows.
        limit, self._outcome.limit = self._outcome.limit, None
        yield from self._followed(self._planned_stage("confirm", planned), callbacks)
        if self._config.test and not self._outcome.limit:
            yield from self._test_stage(callbacks)
        self._outcome.limit = self._outcome.limit or limit

    def _followed(
        self, stage: Stage, callbacks: Sequence[TrialCallback]
    ) -> Generator[Stage, None, None]:
        """Yield a stage with everybody who follows its trials."""
        config = self._config
        kept = [config.run.selection.objective, *config.search.objectives]
        kept += [Constraint.parse(text).name for text in config.search.constraints]
        info = StageInfo(
            study=config.name,
            stage=stage.name,
            total=stage.total,
            done=stage.done,
            measure=config.run.selection.objective,
            epochs=config.run.optimisation.epochs,
            price_per_gpu_hour=config.budget.price_per_gpu_hour,
        )
        with progress(with_past(info, self._record.ledger), self._say, self._live) as shown:
            # The ledger first: whatever is decided on a report, the report is there.
            recorder = LedgerCallback(self._record.ledger, kept)
            stage.callbacks = (recorder, *stage.callbacks, self._meter, shown, *callbacks)
            yield stage
        if stage.limit:
            self._outcome.limit = stage.limit
            self._say(f"{stage.name}: stopped at {stage.limit}; raise it and go on with --resume")

    def _search_stage(self, search: Search, concurrent: int) -> Stage:
        def next_spec() -> TrialSpec | None:
            while (candidate := search.ask()) is not None:
                planned = ("search", candidate.method, candidate.trial_id, candidate.run)
                spec = spec_of(self._config, self._record, *planned)
                spec = replace(spec, parameters=candidate.parameters)
                if not search.should_stop(spec):
                    return spec
                self._end_cut_off(search, spec)
            return None

        done = sum(t.finished for t in self._record.past.values() if t.stage == "search")
        # Kept of the budget, so that what is searched can also be confirmed.
        runs, past = runs_by_searched_method(self._config), self._record.past.values()
        reserve = Reserve(runs, past, concurrent)
        return Stage(
            "search",
            next_spec,
            max(self._config.search.trials, done),
            done,
            (search, reserve),
            search.should_stop,
            lambda: self._meter.exceeded(reserve.expected()),
        )

    def _end_cut_off(self, search: Search, spec: TrialSpec) -> None:
        """End a trial that was about to be stopped when the study was cut off."""
        row = self._record.past[spec.trial_id].row | {
            "attempt": spec.attempt,
            "state": "pruned",
            "reason": "below the others when the study was cut off",
            "started_at": datetime.now(UTC),
            "ended_at": datetime.now(UTC),
            "worker_seconds": 0.0,
            "gpu_seconds": 0.0,
        }
        self._record.ledger.write("trials", [row], str(spec))
        report = {"worker_seconds": 0.0, "score": None}
        search.ended(spec, report, "pruned", row["reason"])

    def _test_stage(self, callbacks: Sequence[TrialCallback]) -> Generator[Stage, None, None]:
        """Break the seal, and read the test split with what was confirmed."""
        self._record.read()
        past, outcome = self._record.past, self._outcome
        seal = TestAccess(self._record.ledger, self._record.study_id, past)
        again = seal.opened or datetime.now(UTC) if self._config.test == "again" else None
        waiting = readable(past, again)
        outcome.tested = not waiting
        if not waiting:
            self._say("the test split was read before; its figures stand (--test again reads it)")
            return
        data, world = self._config.run.data, self._config.run.world
        notes = open_table(data, world, self._config.cache, SPLITS)
        self._record.check_data(notes.only(SEALED))
        if seal.times and not seal.opened:
            self._say(f"WARNING: the test split was read before, in {seal.times} readings")
        seal.open(len(waiting), notes.fingerprint)
        planned = []
        for trial in waiting:
            run = structure(RunConfig, json.loads(trial.row["configuration"]))
            # The study may have been moved since, and its notes with it.
            run = replace(run, data=data, world=world, splits=SPLITS)
            planned.append(("test", trial.method, name_of_test(trial.trial_id), run))
        yield from self._followed(self._planned_stage("test", planned, again=True), callbacks)
        if not outcome.limit:
            seal.close(len(waiting), notes.fingerprint)
            outcome.tested = True

    def _planned_stage(self, name: str, planned: list[Planned], again: bool = False) -> Stage:
        specs = [spec_of(self._config, self._record, *one) for one in planned]
        todo = [spec for spec in specs if again or not self._record.is_done(spec.trial_id)]
        waiting, done = iter(todo), len(specs) - len(todo)
        return Stage(
            name,
            lambda: next(waiting, None),
            len(specs),
            done,
            exceeded=self._meter.exceeded,
        )


def spec_of(
    config: StudyConfig,
    record: StudyManifest,
    stage: str,
    method: str,
    trial_id: str,
    run: RunConfig,
) -> TrialSpec:
    """Return the next attempt at a trial."""
    cluster, past = config.cluster, record.past.get(trial_id)
    kept_in = confirmed_name(trial_id) if stage == "test" else trial_id
    folder, store = config.folder / "trials" / kept_in, config.store
    if method == RANDOM_TEACHER and stage == "control":  # weights that no other trial has
        store = replace(store, folder=str(folder / OWN_TEACHER))
    return TrialSpec(
        study_id=record.study_id,
        trial_id=trial_id,
        attempt=past.attempts + 1 if past else 1,
        stage=stage,
        method=method,
        run=run,
        folder=str(folder),
        cache=str(config.cache),
        store=store,
        ledger=str(config.folder / "ledger"),
        scratch=str(config.folder / "tune"),
        keep_model=stage in ("confirm", "control"),
        known_epochs=past.epochs if past else 0,
        workers=cluster.workers_per_trial,
        cpus_per_worker=cluster.cpus_per_worker,
        gpus_per_worker=cluster.gpus_per_worker,
    )
