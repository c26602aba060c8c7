"""What is a study? Search, then confirmation over fresh seeds, all of it in the ledger.

    check -> pre-train what must be -> tokenise -> search (validation only) -> confirm -> test

Every method gets the same number of search trials, the same head, schedule and batch. The best
configuration of each is then trained again with seeds that the search never used, and only those
runs read the test split.
"""

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from dsgkd.distillation.distiller import TeacherStore, TeacherWeights
from dsgkd.distillation.store.depot import StoreConfig
from dsgkd.errors import InputError
from dsgkd.study.environment import hardware, versions
from dsgkd.study.ledger import Ledger
from dsgkd.study.prepare import build_models, check_models, depths, prepare_notes
from dsgkd.study.progress import Progress
from dsgkd.study.recorder import Recorder
from dsgkd.study.runner import asha, run_trials, slots
from dsgkd.study.search import Search
from dsgkd.study.space import METHODS, MLKD, PLAIN, RANDOM_TEACHER, SearchSpace
from dsgkd.study.teachers import StoredTeacherPlan, plan, store_teacher
from dsgkd.study.trial import OWN_TEACHER, Report, TrialSpec
from dsgkd.text.sources import SPLITS, Notes
from dsgkd.training.run import RunConfig, open_table
from dsgkd.training.teachers import choose

Say = Callable[[str], None]

_FINISHED = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class StudyConfig:
    """A study, whole."""

    name: str
    """Names the study's folder inside `out`."""
    out: Path
    """Folder of studies; with several machines, one that all of them see."""
    run: RunConfig = field(default_factory=RunConfig)
    """What every trial has in common."""
    teachers: tuple[str, ...] = ("tiny-en-med",)
    """Domain models to choose from."""
    space: SearchSpace = field(default_factory=SearchSpace)
    trials: int = 12
    """Search trials in all, shared equally by the methods."""
    confirm_seeds: int = 5
    """Fresh seeds with which each method's best configuration is trained again."""
    grace_epochs: int = 3
    """Epochs before a search trial may be stopped."""
    max_concurrent: int = 0
    """Trials at a time; 0: as many as fit on the cluster."""
    workers_per_trial: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    """GPUs of a worker; less than 1: several share one, each with its part of the memory."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """Where teachers are stored, and how much they may take."""
    seed: int = 17
    """Decides the search and the seeds of all runs."""
    resume: bool = False
    """Go on with the study of this name if it was begun before."""

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise InputError("name", f"'{self.name}' is no folder name", "use letters and digits")
        if self.trials < len(METHODS):
            raise InputError(
                "trials",
                f"{self.trials} for {len(METHODS)} methods",
                f"give {len(METHODS)} or more",
            )
        for name in ("confirm_seeds", "workers_per_trial", "cpus_per_worker", "grace_epochs"):
            if getattr(self, name) < 1:
                raise InputError(name, f"{getattr(self, name)} is too few", "give 1 or more")
        gpus = self.gpus_per_worker
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise InputError("gpus_per_worker", f"{gpus} is no share", "give 0 to 1, or 2, 3, ...")
        if not self.teachers:
            raise InputError("teacher", "none given", "name one with --teacher")

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.out / self.name

    @property
    def cache(self) -> Path:
        """Tokenised notes and small models, shared by the studies in `out`."""
        return self.out / "cache"

    @property
    def budgets(self) -> dict[str, int]:
        """Method -> number of search trials; what cannot be divided goes to distillation first."""
        share, rest = divmod(self.trials, len(METHODS))
        return {method: share + (index < rest) for index, method in enumerate(METHODS)}

    @property
    def resources(self) -> dict[str, float]:
        """What one worker takes."""
        return {"cpu": self.cpus_per_worker} | (
            {"gpu": self.gpus_per_worker} if self.gpus_per_worker else {}
        )


class Study:
    """A study in its folder: `check()` needs no Ray, `run()` does all of it."""

    def __init__(self, config: StudyConfig, say: Say = print) -> None:
        self.config, self.say = config, say
        self.ledger = Ledger(str(config.folder / "ledger"))
        self.study_id = ""
        self._attempts: Counter[str] = Counter()
        self._done: set[str] = set()

    @property
    def _models(self) -> tuple[str, ...]:
        return (self.config.run.student.model, *self.config.teachers)

    def check(self) -> None:
        """Look at everything that the user gave, before anything is started.

        Raises:
            InputError: something cannot be used; no study was begun.
        """
        self._check_folder()
        notes = open_table(self.config.run.data, self.config.run.world, self.config.cache)
        check_models(self._models, self.config.cache)
        self.say(f"{notes.name}: {_describe(notes)}")

    def run(self) -> None:
        """Run the study to its end; Ray must be initialised.

        Raises:
            InputError: something the user gave cannot be used.
            KeyboardInterrupt: the user stopped it; the ledger is whole and it can be resumed.
        """
        config, say, run, models = self.config, self.say, self.config.run, self._models
        concurrent = self._concurrent()
        notes = open_table(run.data, run.world, config.cache)
        begun = self.ledger.exists()
        if begun:
            self._resume(notes)
        build_models(models, config.cache, say)
        for teacher in config.teachers:
            distillation = replace(run.distillation, teacher=teacher)
            prepare_notes(replace(run, distillation=distillation), config.cache, say)
        shares = ", ".join(f"{share} {method}" for method, share in config.budgets.items())
        say(
            f"{config.trials} search trials ({shares}), then {config.confirm_seeds} fresh seeds of "
            f"the best of each; {concurrent} at a time"
        )
        layers = depths(models, config.cache)
        plans = self._plans(layers)
        run = self._choose_teachers(plans, concurrent)
        if not begun:  # whatever the user gave wrong has shown by now
            self._begin(notes)
        if run.distillation.teacher_store == "stored":
            for one in plans:
                store_teacher(one, config.resources, concurrent, say)
        search = self._search(run, layers)
        self._run_search(search, concurrent)
        self._run_confirmation(search, concurrent)

    def _check_folder(self) -> None:
        config = self.config
        exists = self.ledger.exists()
        if exists and not config.resume:
            raise InputError(
                str(config.folder), "a study stands here", "add --resume, or choose another --name"
            )
        if not exists and config.folder.exists() and any(config.folder.iterdir()):
            raise InputError(
                str(config.folder), "a folder with other files", "choose another --out or --name"
            )
        nearest = next(path for path in (config.folder, *config.folder.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise InputError(str(nearest), "cannot be written into", "choose another --out")

    def _concurrent(self) -> int:
        """How many trials run at once: never more than fit, or Train trials would dead-lock."""
        config = self.config
        fitting = slots(config.workers_per_trial, config.resources)
        if fitting < 1 and config.max_concurrent > 0:
            return config.max_concurrent  # an autoscaling cluster may yet grow to it
        if fitting < 1:
            raise InputError(
                "cluster",
                f"{config.workers_per_trial} workers with {config.resources} do not fit on it",
                "lower --workers-per-trial or --gpus-per-worker",
            )
        return min(fitting, config.max_concurrent) if config.max_concurrent > 0 else fitting

    def _resume(self, notes: Notes) -> None:
        """Check that it is the same study, and read what was done."""
        row = self.ledger.read("studies").to_pylist()[0]
        self.study_id = row["study_id"]
        _check_same(json.loads(row["configuration"]), _configuration(self.config), row, notes)
        for trial in self.ledger.read("trials").to_pylist():
            self._attempts[trial["trial_id"]] = max(
                self._attempts[trial["trial_id"]], trial["attempt"]
            )
            if trial["state"] in _FINISHED:
                self._done.add(trial["trial_id"])
        self.say(f"resuming: {len(self._done)} trials are finished")

    def _begin(self, notes: Notes) -> None:
        """Write the study's row."""
        self.study_id = f"{self.config.name}-{secrets.token_hex(4)}"
        table = notes.table.to_pandas()
        labels = {
            split: {
                notes.label_names[label]: int(count)
                for label, count in part["label"].value_counts().sort_index().items()
            }
            for split, part in table.groupby("split")
        }
        row = {
            "study_id": self.study_id,
            "name": self.config.name,
            "created_at": datetime.now(UTC),
            **versions(),
            "hardware": hardware(),
            "data_fingerprint": notes.fingerprint,
            "row_counts": {split: int(n) for split, n in table["split"].value_counts().items()},
            "label_counts": labels,
            "configuration": _configuration(self.config),
            "seed": self.config.seed,
            "budget": {
                "trials": self.config.trials,
                "epochs": self.config.run.optimisation.epochs,
                "confirm_seeds": self.config.confirm_seeds,
            },
        }
        self.ledger.write("studies", [row], "study")

    def _plans(self, layers: dict[str, int]) -> list[StoredTeacherPlan]:
        """Say what may be asked of each teacher, and of its double with random weights."""
        config = self.config
        return [
            plan(config.run, config.space, teacher, weights, layers, config.cache, config.store)
            for teacher in config.teachers
            for weights in get_args(TeacherWeights)
        ]

    def _choose_teachers(self, plans: list[StoredTeacherPlan], concurrent: int) -> RunConfig:
        """Decide between stored and live teachers; return what trials have in common."""
        run, sizes = self.config.run, [one.size() for one in plans]
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
            return config.space.suggest(trial, method, run, config.teachers, layers)

        optimisation = run.optimisation
        first = {
            "encoder_lr": optimisation.encoder_lr,
            "classifier_lr": optimisation.classifier_lr,
            "alpha": run.distillation.alpha,
        }
        return Search(
            config.folder / "search.journal",
            config.name,
            config.budgets,
            suggest,
            dict.fromkeys(config.budgets, first),
            config.seed,
        )

    def _run_search(self, search: Search, concurrent: int) -> None:
        config = self.config

        def next_spec() -> TrialSpec | None:
            candidate = search.ask()
            if candidate is None:
                return None
            return self._spec(
                "search", candidate.method, candidate.trial_id, candidate.run, ("validation",)
            )

        done = sum(trial_id.startswith("search-") for trial_id in self._done)
        self._run_stage(
            "search",
            config.trials,
            done,
            next_spec,
            concurrent,
            _Told(search),
            asha(config.run.optimisation.epochs, config.grace_epochs),
        )

    def _run_confirmation(self, search: Search, concurrent: int) -> None:
        specs = list(self._confirmation(search))
        todo = iter([spec for spec in specs if spec.trial_id not in self._done])
        done = sum(spec.trial_id in self._done for spec in specs)
        self._run_stage("confirm", len(specs), done, lambda: next(todo, None), concurrent)

    def _confirmation(self, search: Search) -> Iterator[TrialSpec]:
        """Yield the runs of confirmation, seed by seed, the methods side by side."""
        best = {method: search.best(method) for method in METHODS}
        for method, run in best.items():
            if run is None:
                self.say(f"WARNING: no search trial of {method} was completed; it is left out")
        for index in range(self.config.confirm_seeds):
            for method in (PLAIN, MLKD, RANDOM_TEACHER):
                run = best[method]
                if run is not None:
                    # Seeds of confirmation are none of the search's, and the same for all methods.
                    seeded = replace(run, seed=self.config.seed + 1000 + index)
                    stage = "control" if method == RANDOM_TEACHER else "confirm"
                    trial_id = f"confirm-{method}-{index:03d}"
                    yield self._spec(stage, method, trial_id, seeded, ("validation", "test"))

    def _run_stage(
        self,
        stage: str,
        total: int,
        done: int,
        next_spec: Callable[[], TrialSpec | None],
        concurrent: int,
        told: Any = None,
        scheduler: Any = None,
    ) -> None:
        if done >= total:
            return
        config = self.config
        progress = Progress(stage, total, done, config.run.selection.objective, self.say)
        listeners = [Recorder(self.ledger), *([told] if told else []), progress]
        run_trials(
            next_spec,
            listeners,
            config.workers_per_trial,
            config.resources,
            concurrent,
            config.folder / "tune" / stage,
            scheduler,
        )

    def _spec(
        self, stage: str, method: str, trial_id: str, run: RunConfig, splits: tuple[str, ...]
    ) -> TrialSpec:
        config = self.config
        folder, store = config.folder / "trials" / trial_id, config.store
        if stage == "control":  # random weights that no other trial has
            store = replace(store, folder=str(folder / OWN_TEACHER))
        return TrialSpec(
            study_id=self.study_id,
            trial_id=trial_id,
            attempt=self._attempts[trial_id] + 1,
            stage=stage,
            method=method,
            run=run,
            folder=str(folder),
            cache=str(config.cache),
            store=store,
            ledger=str(config.folder / "ledger"),
            splits=splits,
            keep_model=stage != "search",
            workers=config.workers_per_trial,
            cpus_per_worker=config.cpus_per_worker,
            gpus_per_worker=config.gpus_per_worker,
        )


@dataclass(frozen=True)
class _Told:
    """Passes on to the search what its trials reach."""

    search: Search

    def started(self, spec: TrialSpec) -> None:
        pass

    def reported(self, spec: TrialSpec, report: Report) -> None:
        if report["score"] is not None:
            self.search.report(spec.trial_id, report["epoch"], report["score"])

    def ended(self, spec: TrialSpec, report: Report | None, state: str, reason: str) -> None:
        self.search.tell(spec.trial_id, state, report.get("best_score") if report else None)


def _describe(notes: Notes) -> str:
    counts = Counter(notes.table["split"].to_pylist())
    sizes = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)
    return f"{len(notes.table):,} notes ({sizes}), {len(notes.label_names)} classes"


def _configuration(config: StudyConfig) -> dict[str, Any]:
    """Everything that decides a study's outcome, as JSON values."""
    free = ("out", "resume", "max_concurrent", "name")
    plain = {key: value for key, value in asdict(config).items() if key not in free}
    plain["objective"] = config.run.selection.objective
    result: dict[str, Any] = json.loads(json.dumps(plain, default=str))
    return result


def _check_same(
    stored: dict[str, Any], given: dict[str, Any], row: dict[str, Any], notes: Notes
) -> None:
    """Refuse to resume a study with another question."""
    if row["data_fingerprint"] != notes.fingerprint:
        raise InputError(
            notes.name, "not the data that the study began with", "start a new study with --name"
        )
    for key in stored.keys() | given.keys():
        if stored.get(key) != given.get(key):
            raise InputError(
                f"study {row['name']}", f"'{key}' differs from when it began", "give the same flags"
            )
