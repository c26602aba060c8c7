"""What is a study? Search, confirmation over fresh seeds, and a test split that is read once.

    check -> pre-train what must be -> tokenise -> store teachers
          -> search (validation) -> confirm (validation) -> test (sealed until then)

Every method gets the same number of search trials (or worker seconds), the same head, schedule
and batch. Everything that happens is a row of the ledger before anything is decided on it, so a
study that was interrupted in any way goes on from there, and one that is finished can be extended.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from filelock import FileLock, Timeout

from dsgkd.data import identity
from dsgkd.data.sources import SEALED, SPLITS, Notes
from dsgkd.distillation.distiller import TeacherStore
from dsgkd.distillation.teachers.source import choose
from dsgkd.errors import InputError
from dsgkd.models import on_the_fly
from dsgkd.study.backends.tune import run_trials, slots
from dsgkd.study.callbacks.progress import Say
from dsgkd.study.config import StudyConfig
from dsgkd.study.cost.budget import BudgetCallback
from dsgkd.study.cost.plan import print_estimate, print_replays
from dsgkd.study.dispatcher import TrialCallback
from dsgkd.study.manifest import StudyManifest
from dsgkd.study.preparation.prepare import build_models, check_models, depths, prepare_notes
from dsgkd.study.preparation.teachers import StoredTeacherPlan, plan, store_teacher
from dsgkd.study.search.search import Search
from dsgkd.study.stages import Outcome, Stages
from dsgkd.study.trial import Steps, trial_steps
from dsgkd.training.run import RunConfig, open_table


class Study:
    """A study in its folder: `check()` needs no Ray, `run()` does all of it.

    Args:
        config: the study.
        say: takes lines for people.
        live: show a table of the trials, where standard output is a terminal.
        steps: what a trial does.
    """

    def __init__(
        self,
        config: StudyConfig,
        say: Say = print,
        live: bool = False,
        steps: Steps = trial_steps,
    ) -> None:
        # The test split is not read by anything before its stage.
        sealed = replace(config.run, splits=SEALED)
        self.config = replace(config, run=sealed)
        self.say, self._live, self._steps = say, live, steps
        self.outcome = Outcome()
        self._record = StudyManifest(self.config)
        self._meter = BudgetCallback(config.budget)

    def check(self) -> None:
        """Look at everything that the user gave, before anything is started.

        Raises:
            InputError: something cannot be used; no study was begun.
        """
        config = self.config
        self._check_folder()
        notes = self._notes()
        check_models(config.models, config.cache)
        self.say(f"{notes.name}: {_describe(notes)}")

    def run(self, callbacks: Sequence[TrialCallback] = ()) -> Outcome:
        """Run the study to its end; Ray must be initialised.

        Args:
            callbacks: are told of every trial, after the ledger, the search and the terminal.

        Raises:
            InputError: something the user gave cannot be used, or the study runs elsewhere.
            KeyboardInterrupt: the user stopped it; the ledger is whole and it can be resumed.
        """
        with self._alone():
            self._run(callbacks)
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
        print_estimate(self.config, run, plans, concurrent, self.say)
        if self._record.exists():
            print_replays(self.config, self._record.ledger, self.say)

    def _run(self, callbacks: Sequence[TrialCallback]) -> None:
        config, record = self.config, self._record
        begun = record.exists()
        if begun:
            record.resume(self._notes())
            self._meter = BudgetCallback(
                config.budget, self._record.ledger.read("trials").to_pylist()
            )
            done = sum(trial.finished for trial in record.past.values() if trial.method)
            self.say(f"resuming: {done} trial{' is' if done == 1 else 's are'} finished")
        run, layers, concurrent = self._prepare()
        plans = self._plans(layers)
        run = self._choose_teachers(run, plans, concurrent)
        if begun:
            record.extend()
        else:
            if config.estimate:
                print_estimate(config, run, plans, concurrent, self.say)
            record.begin(self._notes())  # whatever the user gave wrong has shown by now
        if run.distillation.teacher_store == "stored":
            for one in plans:
                store_teacher(one, config.cluster.resources, concurrent, self.say)
        cluster = config.cluster
        stages = Stages(config, record, self._meter, self.outcome, self.say, self._live)
        run_trials(
            stages.of(self._search(run, layers), concurrent, callbacks),
            cluster.workers_per_trial,
            cluster.resources,
            concurrent,
            config.folder / "tune",
            self._steps,
        )

    def _notes(self) -> Notes:
        run = self.config.run
        return open_table(run.data, run.world, self.config.cache, run.splits)

    def _prepare(self) -> tuple[RunConfig, dict[str, int], int]:
        """Pre-train and tokenise what is missing.

        Returns:
            What trials have in common, the number of layers of each model, and how many trials
            run at a time.
        """
        config, say, run = self.config, self.say, self.config.run
        concurrent = self._concurrent()
        build_models(config.models, config.cache, say)
        for teacher in config.models[1:]:
            distillation = replace(run.distillation, teacher=teacher)
            prepare_notes(replace(run, distillation=distillation), config.cache, say)
        shares = ", ".join(f"{share} {method}" for method, share in config.budgets.items())
        seeds, top = config.confirmation.seeds, config.confirmation.top
        say(
            f"{config.search.trials} search trials ({shares}), then {seeds} fresh "
            f"seed{'' if seeds == 1 else 's'} of the best {'' if top == 1 else f'{top} '}of each; "
            f"{concurrent} at a time"
        )
        return run, depths(config.models, config.cache), concurrent

    # Before the first trial.

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the study, so that no second driver writes into it."""
        config = self.config
        lock = FileLock(config.out / f".{config.name}.lock", timeout=0)
        try:
            config.out.mkdir(parents=True, exist_ok=True)
            with lock:
                yield
        except Timeout:
            raise InputError(
                str(config.folder), "this study is running already", "look at it with dsgkd status"
            ) from None

    def _check_folder(self) -> None:
        config = self.config
        exists = self._record.exists()
        if exists and not config.resume:
            raise InputError(
                str(config.folder), "a study stands here", "add --resume, or choose another --name"
            )
        if exists:
            identity.check_kept(config.cache)
            # Of the controls, a teacher of another domain may be new.
            on_the_fly.check_kept((config.run.student.model, *config.teachers), config.cache)
        # A study that was killed before its first row has left an empty ledger.
        found = {path.name for path in config.folder.iterdir()} if config.folder.is_dir() else set()
        if not exists and found - {"ledger"}:
            raise InputError(
                str(config.folder), "a folder with other files", "choose another --out or --name"
            )
        nearest = next(path for path in (config.folder, *config.folder.parents) if path.exists())
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
        """Say what may be asked of each teacher, and of its double with random weights."""
        config = self.config

        def planned(teacher: str, weights: Any) -> StoredTeacherPlan:
            return plan(
                config.run, config.space, teacher, weights, layers, config.cache, config.store
            )

        plans = [planned(teacher, "pretrained") for teacher in config.teachers]
        for method, arm in config.arms.items():
            if arm.teacher:
                plans.append(planned(arm.teacher, "pretrained"))
            if arm.weights == "random" and method in config.searched:
                plans += [planned(teacher, "random") for teacher in config.teachers]
        return plans

    def _choose_teachers(
        self, run: RunConfig, plans: list[StoredTeacherPlan], concurrent: int
    ) -> RunConfig:
        """Decide between stored and live teachers; return what trials have in common."""
        sizes = [one.size() for one in plans]
        # Confirmation draws other random teachers, which are gone with their trial.
        size = sum(sizes) + concurrent * max(sizes)
        stored, why = choose(
            run.distillation.teacher_store, size, self.config.store, is_short=False
        )
        self.say(why)
        use: TeacherStore = "stored" if stored else "live"
        return replace(run, distillation=replace(run.distillation, teacher_store=use))

    def _search(self, run: RunConfig, layers: dict[str, int]) -> Search:
        config = self.config

        def suggest(trial: Any, method: str) -> RunConfig:
            return config.space.suggest(trial, config.arms[method], run, config.teachers, layers)

        return Search(
            config.folder / "search.journal",
            config.name,
            config.search,
            config.pruning,
            run,
            config.budgets,
            suggest,
            config.first,
            config.seed,
            self._record.past,
        )


def _describe(notes: Notes) -> str:
    counts = Counter(notes.table["split"].to_pylist())
    sizes = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])
    return f"{len(notes.table):,} notes ({sizes}; test sealed), {len(notes.label_names)} classes"
