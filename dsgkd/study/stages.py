"""The stages of a study: search, confirmation, and the reading of the test split.

Every stage is made when the one before is over, from what the ledger says of it.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dsgkd.data.config import SEALED, SPLITS
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.callbacks.ledger import LedgerCallback
from dsgkd.study.callbacks.progress import progress
from dsgkd.study.config import StudyConfig
from dsgkd.study.confirmation import confirmation, runs_by_searched_method, unread
from dsgkd.study.console import Console
from dsgkd.study.cost.budget import BudgetCallback, Reserve
from dsgkd.study.declared import Declared
from dsgkd.study.dispatcher import Stage
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.messages import Charge, TrialEnded
from dsgkd.study.names import restored
from dsgkd.study.objectives import Constraint
from dsgkd.study.search.pruning import PruningCallback
from dsgkd.study.search.rungs import FirstRung
from dsgkd.study.search.search import Search
from dsgkd.study.spec import LINK, PlannedTrial, TrialSpec
from dsgkd.study.status.status import read_status
from dsgkd.study.test_access import TestAccess
from dsgkd.training.opening import open_table
from dsgkd.training.recipe import links_of


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
        manifest: what its ledger says.
        budget: what was spent.
        outcome: how the study ended; filled in here.
        console: takes lines for people.
        live: show a table of the trials, where standard output is a terminal.
    """

    def __init__(
        self,
        config: StudyConfig,
        manifest: StudyManifest,
        budget: BudgetCallback,
        outcome: Outcome,
        console: Console,
        live: bool,
    ) -> None:
        self._config, self._manifest, self._budget = config, manifest, budget
        self._outcome, self._console, self._live = outcome, console, live

    def of(
        self, source: Search | Declared, concurrent: int, callbacks: Sequence[TrialCallback]
    ) -> Generator[Stage, None, None]:
        """Yield the stages; what stands after a `yield` happens when that stage is over."""
        if isinstance(source, Search):
            yield from self._followed(self._search_stage(source, concurrent), callbacks)
        planned = list(confirmation(self._config, source))
        confirmed = {one.method for one in planned}
        for method in self._config.arms:
            if method not in confirmed and not self._outcome.limit:
                self._console.warn(f"no search trial of {method} was completed; it is left out")
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
        config, objective = self._config, self._config.run.selection.objective
        kept = [objective, *config.search.objectives]
        kept += [Constraint.parse(text).name for text in config.search.constraints]
        ledger, names = self._manifest.ledger, self._manifest.names
        before = read_status(ledger).begun(stage.name, stage.total, stage.done)
        with progress(before, self._console, self._live) as shown:
            # The ledger first: whatever is decided on a report, the report is there.
            recorded = LedgerCallback(ledger, kept, names.public)
            stage.callbacks = (recorded, *stage.callbacks, self._budget, *shown, *callbacks)
            yield stage
        if stage.limit:
            self._outcome.limit = stage.limit
            self._console.print(
                f"{stage.name}: stopped at {stage.limit}; raise it and go on with --resume"
            )

    def _search_stage(self, search: Search, concurrent: int) -> Stage:
        config, past = self._config, self._manifest.past.values()
        searched = [trial for trial in past if trial.stage == "search"]
        pruning = PruningCallback(
            config.stopping,
            config.run.optimisation.most_epochs,
            searched,
            self._manifest.first_rung,
            self._note_first_rung,
        )
        done = sum(trial.finished for trial in searched)
        # Kept of the budget, so that what is searched can also be confirmed.
        reserve = Reserve(runs_by_searched_method(config), searched, concurrent)
        return Stage(
            "search",
            self._searched(search, pruning),
            max(config.search.trials, done),
            done,
            callbacks=(search, pruning, reserve),
            should_stop=pruning.should_stop,
            rule=lambda: str(pruning.rung or ""),
            exceeded=lambda at: self._budget.exceeded(at, reserve.expected()),
        )

    def _note_first_rung(self, rung: FirstRung) -> None:
        self._manifest.note_first_rung(rung)
        self._console.print(str(rung))

    def _searched(self, search: Search, pruning: PruningCallback) -> Iterator[TrialSpec | None]:
        """Yield what the search asks for, but for trials whose fate was already decided."""
        while (candidate := search.ask()) is not None or search.waits:
            if candidate is None:
                yield None
                continue
            spec = spec_of(self._config, self._manifest, candidate)
            if pruning.should_stop(spec):
                self._end_cut_off(search, pruning, spec)
            else:
                yield spec

    def _end_cut_off(self, search: Search, pruning: PruningCallback, spec: TrialSpec) -> None:
        """End a trial that was about to be stopped when the study was cut off."""
        now = datetime.now(UTC)
        reason = "below the others when the study was cut off"
        row = self._manifest.past[spec.trial_id].row | {
            "attempt": spec.attempt,
            "state": "pruned",
            "reason": reason,
            "started_at": now,
            "ended_at": now,
            "worker_seconds": 0.0,
            "gpu_seconds": 0.0,
        }
        self._manifest.ledger.write("trials", [row], str(spec))
        for callback in (search, pruning):
            callback.on_end(spec, TrialEnded("pruned", reason, Charge(now)))

    def _test_stage(self, callbacks: Sequence[TrialCallback]) -> Generator[Stage, None, None]:
        """Open the test split, and read it with what was confirmed."""
        self._manifest.read()
        past, outcome = self._manifest.past, self._outcome
        access = TestAccess(self._manifest.ledger, self._manifest.study_id)
        again = access.opened_at or datetime.now(UTC) if self._config.test == "again" else None
        waiting = unread(past, again)
        if not waiting:
            outcome.tested = access.earlier > 0 or access.opened_at is not None
            if access.opened_at is not None:  # cut off between the last model and the end
                access.close()
            if outcome.tested:
                line = "the test split was read before; its figures stand (--test again reads it)"
                self._console.print(line)
            else:
                self._console.warn("no model was confirmed: the test split stays sealed")
            return
        data, world = self._config.run.data, self._config.run.world
        notes = open_table(data, world, self._config.cache, SPLITS)
        self._manifest.check_data(notes.only(SEALED))
        if access.earlier and not access.opened_at:
            self._console.warn(f"the test split was read before, in {access.earlier} readings")
        access.open(len(waiting), notes.fingerprint)
        planned = [
            PlannedTrial(
                "test",
                trial.method,
                f"test-{trial.trial_id.removeprefix('confirm-')}",
                replace(restored(trial.row, self._config), splits=SPLITS),
                trial.trial_id,
            )
            for trial in waiting
        ]
        yield from self._followed(self._planned_stage("test", planned, again=True), callbacks)
        if not outcome.limit:
            access.close()
            outcome.tested = True

    def _planned_stage(
        self, name: str, planned: Iterable[PlannedTrial], again: bool = False
    ) -> Stage:
        specs = [spec_of(self._config, self._manifest, one) for one in planned]
        todo = [spec for spec in specs if again or not self._manifest.is_done(spec.trial_id)]
        done = len(specs) - len(todo)
        return Stage(name, iter(todo), len(specs), done, known=True, exceeded=self._budget.exceeded)


def spec_of(config: StudyConfig, manifest: StudyManifest, planned: PlannedTrial) -> TrialSpec:
    """Return the next attempt at a trial, with the links that it starts from."""
    links: list[TrialSpec] = []
    for link in links_of(planned.run, config.cache):
        one = PlannedTrial(LINK, planned.method, f"{LINK}-{link.key[:8]}", link.run)
        links.append(replace(_spec(config, manifest, one), key=link.key, needs=tuple(links)))
    return replace(_spec(config, manifest, planned), needs=tuple(links))


def _spec(config: StudyConfig, manifest: StudyManifest, planned: PlannedTrial) -> TrialSpec:
    cluster, past = config.cluster, manifest.past.get(planned.trial_id)
    kept_in = planned.parent if planned.stage == "test" else planned.trial_id
    own_teacher, store = "", config.teacher_store
    arm = config.arms[planned.method]
    if (arm.weights == "random" or arm.shuffled) and planned.run.seed != config.seed:
        # Weights, or partners of words, that no trial with another seed has.
        own_teacher = str(config.scratch / "trials" / planned.trial_id / "teacher")
        store = replace(store, folder=own_teacher)
    return TrialSpec(
        study_id=manifest.study_id,
        trial_id=planned.trial_id,
        attempt=past.attempts + 1 if past else 1,
        stage=planned.stage,
        method=planned.method,
        run=planned.run,
        parent=planned.parent,
        parameters=planned.parameters,
        folder=config.location.child(f"trials/{kept_in}").root,
        cache=str(config.cache),
        shared_cache=config.shared_cache,
        artefacts=config.artefacts,
        store=store,
        own_teacher=own_teacher,
        ledger=manifest.ledger.root,
        scratch=config.location.child("tune").root,  # which all machines have to see
        keep_model=planned.stage in ("confirm", "control"),
        known_epochs=past.epochs if past else 0,
        workers=cluster.workers_per_trial,
        cpus_per_worker=cluster.cpus_per_worker,
        gpus_per_worker=cluster.gpus_per_worker,
    )
