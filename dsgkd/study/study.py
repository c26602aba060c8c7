"""A study: search, confirmation over fresh seeds, and a test split that is read once.

    check -> pre-train what must be -> tokenise -> store teachers
          -> search (validation) -> confirm (validation) -> test (sealed until then)

Every method gets the same number of search trials (or worker seconds), the same head, schedule
and batch. Everything that happens is a row of the ledger before anything is decided on it, so a
study that was interrupted in any way goes on from there, and one that is finished can be extended.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from dsgkd.data import identity
from dsgkd.data.config import SEALED
from dsgkd.data.notes import Notes
from dsgkd.distillation.config import TeacherStore, TeacherWeights
from dsgkd.distillation.teachers.source import choose
from dsgkd.errors import InputError
from dsgkd.headroom.check import Headroom
from dsgkd.headroom.report import ledger_rows
from dsgkd.storage.artefacts import Artefacts
from dsgkd.storage.lease import Busy, Lease
from dsgkd.storage.location import Location
from dsgkd.study.backends.backend import Steps
from dsgkd.study.backends.ray_train import RayTrainBackend
from dsgkd.study.backends.tune import TuneBackend, slots
from dsgkd.study.callbacks.callback import TrialCallback
from dsgkd.study.config import StudyConfig
from dsgkd.study.console import Console
from dsgkd.study.cost.budget import BudgetCallback
from dsgkd.study.cost.plan import print_estimate, print_replays
from dsgkd.study.declared import Declared
from dsgkd.study.dispatcher import Dispatcher, Stage
from dsgkd.study.lines import kept_line, notes_line, plan_line, stuck_lines
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.preparation.headroom import print_headroom
from dsgkd.study.preparation.prepare import build_models, check_models, depths, prepare_notes
from dsgkd.study.preparation.shared_cache import pull, share_key
from dsgkd.study.preparation.teachers import StoredTeacherPlan, plan, store_teacher
from dsgkd.study.search.arms import PLAIN, public_name
from dsgkd.study.search.config import ParameterPoint
from dsgkd.study.search.search import Search
from dsgkd.study.spec import LINK
from dsgkd.study.stages import Outcome, Stages
from dsgkd.study.trial import trial_steps
from dsgkd.training import on_the_fly
from dsgkd.training.config import RunConfig
from dsgkd.training.opening import open_table

JOURNAL = "search.journal"


class Study:
    """A study in its folder: `check()` needs no Ray, `run()` does all of it.

    Args:
        config: the study.
        console: takes lines for people.
        live: show a table of the trials, where standard output is a terminal.
        steps: what a trial does.
    """

    def __init__(
        self,
        config: StudyConfig,
        console: Console | None = None,
        live: bool = False,
        steps: Steps = trial_steps,
    ) -> None:
        # The test split is not read by anything before its stage.
        sealed = replace(config.run, splits=SEALED)
        self.config = replace(config, run=sealed)
        self.console, self._live, self._steps = console or Console(), live, steps
        self.outcome = Outcome()
        self._manifest = StudyManifest(self.config)

    def check(self) -> None:
        """Look at everything that the user gave, before anything is started.

        Raises:
            InputError: something cannot be used; no study was begun.
        """
        config = self.config
        self._check_folder()
        notes = self._notes()
        if not config.search.trials:
            Declared(config, config.run)
        check_models(config.models, config.cache, config.run.world)
        self.console.print(notes_line(notes))

    def run(self, callbacks: Sequence[TrialCallback] = ()) -> Outcome:
        """Run the study to its end; Ray must be initialised.

        Args:
            callbacks: are told of every trial, after the ledger, the search and the terminal.

        Raises:
            InputError: something the user gave cannot be used, or the study runs elsewhere.
            KeyboardInterrupt: the user stopped it; the ledger is whole and it can be resumed.
        """
        config = self.config
        try:
            with Lease(Location(config.out), f".{config.name}.lock"):
                self._run(callbacks)
        except Busy:
            raise InputError(
                config.location.path(),
                "this study is running already",
                "look at it with dsgkd status",
            ) from None
        return self.outcome

    def plan(self) -> None:
        """Train nothing; say what the study will cost and, where it was begun, what its trials
        would have cost and found on other clusters; Ray must be initialised.

        Raises:
            InputError: something the user gave cannot be used.
        """
        run, layers, concurrent = self._prepare()
        plans = self._plans(layers)
        run = self._choose_teachers(run, plans, concurrent)
        print_estimate(self.config, run, plans, concurrent, self.console)
        if self._manifest.exists() and self.config.search.trials:
            print_replays(self.config, self._manifest.ledger, self.console)

    def _run(self, callbacks: Sequence[TrialCallback]) -> None:
        config, manifest, console = self.config, self._manifest, self.console
        rows: list[dict[str, Any]] = []
        begun = manifest.exists()
        if begun:
            manifest.resume(self._notes())
            rows = manifest.ledger.rows("trials")
            done = sum(trial.finished for trial in manifest.past.values())
            console.print(f"resuming: {done} trial{' is' if done == 1 else 's are'} finished")
        run, layers, concurrent = self._prepare()
        plans = self._plans(layers)
        run = self._choose_teachers(run, plans, concurrent)
        if begun:
            manifest.extend()
        else:
            found = self._headroom() if config.headroom else None
            if config.estimate:
                print_estimate(config, run, plans, concurrent, console)
            manifest.begin(self._notes())  # whatever the user gave wrong has shown by now
            if found is not None:
                rows_of = ledger_rows(found, manifest.study_id)
                manifest.ledger.write("headroom", rows_of, "headroom")
        if run.distillation.teacher_store == "stored":
            for one in plans:
                store_teacher(one, config.cluster.resources, concurrent, console)
        budget = BudgetCallback(config.budget, rows)
        stages = Stages(config, manifest, budget, self.outcome, console, self._live)
        dispatcher = Dispatcher(
            self._kept(stages.of(self._source(run, layers), concurrent, callbacks)),
            concurrent,
            *self._links(),
        )
        cluster, scratch = config.cluster, config.scratch / "tune"
        if cluster.workers_per_trial == 1:
            backend = TuneBackend(cluster.resources, concurrent, scratch, self._steps)
        else:
            backend = RayTrainBackend(cluster.resources, concurrent, scratch, self._steps)
        backend.run(dispatcher)
        manifest.read()
        for line in stuck_lines(manifest.past.values()):
            console.warn(line)

    def _kept(self, stages: Generator[Stage, None, None]) -> Generator[Stage, None, None]:
        """Yield the stages; after each, put the search's journal where the study lies."""
        location, searches = self.config.location, self.config.search.trials
        with closing(stages):
            for stage in stages:
                yield stage
                if location.is_remote and searches:
                    location.upload(JOURNAL, self.config.scratch / JOURNAL)
            if location.is_remote:
                location.delete_tree("tune")  # Ray Train's own files

    def _links(self) -> tuple[list[str], dict[str, str]]:
        """Return the links whose artefacts are there, and why others failed.

        What was deleted since is made again.
        """
        artefacts = Artefacts(self.config.artefacts)
        links = [trial for trial in self._manifest.past.values() if trial.stage == LINK]
        made = [
            link.trial_id
            for link in links
            if link.state == "complete" and artefacts.get(link.row["settings"]["artefact"])
        ]
        return made, {
            link.trial_id: link.row["reason"] or "" for link in links if link.state == "failed"
        }

    def _notes(self) -> Notes:
        config, run = self.config, self.config.run
        if config.shared_cache:
            share_key(Location(config.shared_cache), config.cache)
        return open_table(run.data, run.world, self.config.cache, run.splits)

    def _prepare(self) -> tuple[RunConfig, dict[str, int], int]:
        """Pre-train and tokenise what is missing.

        Returns:
            What trials have in common, the number of layers of each model, and how many trials
            run at a time.
        """
        config, console, run = self.config, self.console, self.config.run
        concurrent = self._concurrent()
        build_models(config.models, config.cache, run.world, console, config.shared_cache)
        for teacher in config.models[1:]:
            distillation = replace(run.distillation, teacher=teacher)
            prepare_notes(replace(run, distillation=distillation), config.cache, console)
        layers = depths(config.models, config.cache, run.world)
        if not config.search.trials:
            Declared(config, run).check(layers)
        console.print(f"{plan_line(config)}; {concurrent} at a time")
        return run, layers, concurrent

    # Before the first trial.

    def _check_folder(self) -> None:
        config, location = self.config, self.config.location
        exists = self._manifest.exists()
        if exists and not config.resume:
            raise InputError(
                location.path(), "a study stands here", "add --resume, or choose another --name"
            )
        if exists:
            if config.shared_cache:
                pull(Location(config.shared_cache), config.cache)
            identity.check_kept(config.cache)
            # Of the controls, a teacher of another domain may be new.
            known = (config.run.student.model, *config.single_teachers)
            on_the_fly.check_kept(known, config.cache, config.run.world)
        # A study that was killed before its first row has left an empty ledger.
        found = {*location.folders(), *(entry.name for entry in location.list())}
        if not exists and found - {"ledger"}:
            raise InputError(
                location.path(), "a folder with other files", "choose another --out or --name"
            )
        if location.is_remote:
            return
        folder = location.folder
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(str(nearest), "cannot be written into", "choose another --out")

    def _concurrent(self) -> int:
        """How many trials run at once: never more than fit, or Train trials would dead-lock."""
        cluster = self.config.cluster
        fitting = slots(cluster.workers_per_trial, cluster.resources)
        if fitting < 1 and cluster.max_concurrent > 0:
            return cluster.max_concurrent  # an autoscaling cluster may yet grow to it
        if fitting < 1:
            raise InputError(
                "cluster",
                f"{cluster.workers_per_trial} workers with {cluster.resources} do not fit on it",
                "lower --workers-per-trial or --gpus-per-worker",
            )
        return min(fitting, cluster.max_concurrent) if cluster.max_concurrent > 0 else fitting

    def _plans(self, layers: dict[str, int]) -> list[StoredTeacherPlan]:
        """Plan what may be asked of each teacher, with random weights and on shuffled words too.

        Those follow the seed, which only the trials of a search have in common.
        """
        config = self.config
        searches = config.search.trials > 0
        space = config.space if searches else Declared(config, config.run).space

        def planned(
            teacher: str, weights: TeacherWeights, shuffled: bool = False
        ) -> StoredTeacherPlan:
            distillation = replace(config.run.distillation, shuffled=shuffled)
            run = replace(config.run, distillation=distillation)
            return plan(
                *(run, space, teacher, weights, layers),
                *(config.cache, config.teacher_store, config.shared_cache),
            )

        plans = [planned(teacher, "pretrained") for teacher in config.single_teachers]
        for method, arm in config.arms.items():
            if arm.teacher:
                plans.append(planned(arm.teacher, "pretrained"))
            follows_seed = arm.weights == "random" or arm.shuffled
            if follows_seed and searches and method in config.searched:
                plans += [
                    planned(teacher, arm.weights, arm.shuffled)
                    for teacher in config.single_teachers
                ]
        return plans

    def _headroom(self) -> Headroom | None:
        config = self.config
        return print_headroom(
            *(config.run, config.single_teachers, config.seed, config.cluster.resources),
            *(config.cache, config.teacher_store, config.shared_cache, self.console),
        )

    def _choose_teachers(
        self, run: RunConfig, plans: list[StoredTeacherPlan], concurrent: int
    ) -> RunConfig:
        """Decide between stored and live teachers; return what trials have in common."""
        sizes = [one.size() for one in plans]
        # Confirmation draws other random and shuffled teachers, which are gone with their trial.
        size = sum(sizes) + concurrent * max(sizes)
        stored, why = choose(
            run.distillation.teacher_store, size, self.config.teacher_store, is_short=False
        )
        self.console.print(why)
        use: TeacherStore = "stored" if stored else "live"
        return replace(run, distillation=replace(run.distillation, teacher_store=use))

    def _source(self, run: RunConfig, layers: dict[str, int]) -> Search | Declared:
        """Return where the configurations come from that are confirmed."""
        config = self.config
        if not config.search.trials:
            return Declared(config, run)

        def suggest(trial: Any, method: str) -> RunConfig:
            return config.space.suggest(trial, config.arms[method], run, teachers, layers)

        teachers = {public_name(choice): choice for choice in config.teachers}
        return Search(
            config.scratch / JOURNAL,
            config.name,
            config.search,
            run,
            config.budgets,
            suggest,
            config.initial_points,
            config.seed,
            self._manifest.past,
            PLAIN if config.search.match_rates else "",
            config.confirmation.top,
            self._print_kept,
        )

    def _print_kept(self, points: Sequence[ParameterPoint]) -> None:
        for point in points:
            self.console.print(kept_line(point))
