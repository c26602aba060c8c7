"""The configuration of a study, and whether two configurations are the same study."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from dsgkd.configuration import Count, FolderOrUri, Name, Seed, Text, Whole, config
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.errors import InputError
from dsgkd.storage.location import Location
from dsgkd.study.cost.budget import BudgetConfig
from dsgkd.study.objectives import Constraint, check_name
from dsgkd.study.search.arms import MASKED_LM, Arm, arms, teacher_names
from dsgkd.study.search.config import ParameterPoint, PruningConfig, SearchConfig
from dsgkd.study.search.space import SearchSpace
from dsgkd.training.config import RunConfig


@config
class ConfirmationConfig:
    """How the best configurations are tried again, on seeds that the search never used."""

    top: Count = 1
    """Configurations of each method that are confirmed."""
    seeds: Count = 5
    """Fresh seeds of each configuration."""
    controls: tuple[Text, ...] = ("random",)
    """Of `random`, `shuffled` and `wrong-domain=MODEL`."""
    masked_lm: bool = True
    """Where students are adapted by their teacher first: also confirm a baseline that is adapted by
    masked-language-model training on the same texts, with as many steps."""
    tune_controls: bool = True
    """Search the controls too, with as many trials as the others; else they are given the best
    configurations of distillation, which is a weaker control."""

    def __post_init__(self) -> None:
        arms(self.controls)


@config
class ClusterConfig:
    """What trials take of the cluster."""

    max_concurrent: Whole = 0
    """Trials at a time; 0: as many as fit."""
    workers_per_trial: Count = 1
    """More than 1: under Ray Train."""
    cpus_per_worker: Count = 1
    gpus_per_worker: Annotated[float, Ge(0), Le(1024)] = 0.0
    """GPUs of a worker; less than 1: several share one, each with its part of the memory."""

    def __post_init__(self) -> None:
        gpus = self.gpus_per_worker
        if gpus > 1 and gpus != int(gpus):
            raise InputError("gpus_per_worker", f"{gpus} is no share", "give 0 to 1, or 2, 3, ...")

    @property
    def resources(self) -> dict[str, float]:
        """What one worker takes."""
        return {"cpu": self.cpus_per_worker} | (
            {"gpu": self.gpus_per_worker} if self.gpus_per_worker else {}
        )


@config
class StudyConfig:
    """A study, whole."""

    name: Name
    """Names the study's folder inside `out`."""
    out: FolderOrUri
    """Folder of studies, or its URI, such as `s3://bucket/studies`; with several machines, one that
    all of them see."""
    run: RunConfig = field(default_factory=RunConfig)
    """What every trial has in common."""
    teachers: Annotated[tuple[Text, ...], MinLen(1)] = ("tiny-en-med",)
    """Domain models to choose from; `a+b` are two that teach together."""
    space: SearchSpace = field(default_factory=SearchSpace)
    initial_points: tuple[ParameterPoint, ...] = ()
    """Points that every method tries first, as far as they lie in the space. Without a search, they
    are what is confirmed, the first as many as `confirm-top` says."""
    search: SearchConfig = field(default_factory=SearchConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    confirmation: ConfirmationConfig = field(default_factory=ConfirmationConfig)
    test: Literal["", "once", "again"] = ""
    """`once`: after confirmation, read the test split with the models that have not read it yet;
    `again`: with all; empty: leave it sealed. Every reading is written down."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    """Where teachers are stored, and how much they may take."""
    seed: Seed = 17
    """Decides the search and the seeds of all runs."""
    resume: bool = False
    """Go on with the study of this name if it was begun before, or extend it."""
    headroom: bool = True
    """Before a new study begins, say how much the teachers' states tell of the labels beyond the
    text: whether there is anything to transfer."""
    estimate: bool = True
    """Time a few steps before a new study begins, and say what it will cost."""

    def __post_init__(self) -> None:
        if self.name == "cache":
            raise InputError("name", "'cache' is the folder of what studies share", "give another")
        searched = len(self.searched)
        if 0 < self.search.trials < searched:
            raise InputError(
                "trials",
                f"{self.search.trials} for {searched} methods",
                f"give {searched} or more, or 0",
            )
        constrained = [Constraint.parse(text).name for text in self.search.constraints]
        for name in (*self.search.objectives, *constrained):
            check_name(name, self.run.task.measures)

    @property
    def location(self) -> Location:
        """The study's own folder."""
        return Location(self.out).child(self.name)

    @property
    def cache(self) -> Path:
        """Tokenised notes and small models, shared by the studies in `out`; always local."""
        location = Location(self.out)
        if not location.is_remote:
            return location.folder / "cache"
        return local_scratch(location.path()) / "cache"

    @property
    def scratch(self) -> Path:
        """Local files that are not needed again: Tune's, and the search's journal."""
        if not self.location.is_remote:
            return self.location.folder
        return local_scratch(self.location.path())

    @property
    def teacher_store(self) -> StoreConfig:
        """Where teachers are stored: unless told otherwise, in the cache that machines share."""
        if self.store.folder or not self.shared_cache:
            return self.store
        return replace(self.store, folder=Location(self.shared_cache).child("teachers").root)

    @property
    def shared_cache(self) -> str:
        """URI of what machines without a folder in common share; empty: they have one."""
        location = Location(self.out)
        return location.child("cache").root if location.is_remote else ""

    @property
    def artefacts(self) -> str:
        """Where what the links of recipes have made is kept, for all studies in `out`."""
        return Location(self.out).child("cache/artefacts").root

    @property
    def arms(self) -> dict[str, Arm]:
        """The methods that are compared, by name."""
        adapted = self.confirmation.masked_lm and self.run.adaptation.steps > 0
        return {arm.method: arm for arm in arms(self.confirmation.controls, adapted)}

    @property
    def searched(self) -> tuple[str, ...]:
        """The methods that are tuned."""
        tuned = self.confirmation.tune_controls
        return tuple(name for name, arm in self.arms.items() if tuned or arm.role != "control")

    @property
    def budgets(self) -> dict[str, int]:
        """Method -> number of search trials; what cannot be divided goes to distillation first.

        Where masked-language-model training keeps the rates of plain fine-tuning, nothing is left
        to search: it has a trial for each configuration that is confirmed.
        """
        settled = self.search.match_rates and not self.space.function and MASKED_LM in self.searched
        open_ = [method for method in self.searched if not (settled and method == MASKED_LM)]
        few = min(self.confirmation.top, self.search.trials // len(self.searched))
        share, rest = divmod(self.search.trials - few * settled, len(open_))
        found = {method: share + (index < rest) for index, method in enumerate(open_)}
        return {method: found.get(method, few) for method in self.searched}

    @property
    def stopping(self) -> PruningConfig:
        """When a search trial is stopped early, for as many trials as there are."""
        return self.pruning.resolved(min(self.budgets.values()))

    @property
    def models(self) -> tuple[str, ...]:
        """The student and every teacher, each by itself."""
        wrong = [arm.teacher for arm in self.arms.values() if arm.teacher]
        links = [name for one in self.run.chain for name in teacher_names(one.distillation.teacher)]
        found = (self.run.student.model, *self.single_teachers, *wrong, *links)
        return tuple(dict.fromkeys(found))

    @property
    def single_teachers(self) -> tuple[str, ...]:
        """Every teacher that some choice names."""
        names = (name for choice in self.teachers for name in teacher_names(choice))
        return tuple(dict.fromkeys(names))


_FREE = (
    *("name", "out", "resume", "test", "initial_points", "store", "cluster", "budget"),
    *("confirmation", "search.trials", "run.data.path", "estimate", "headroom"),
)
"""What may change when a study goes on; anything else is another question."""


def local_scratch(of: str) -> Path:
    """Return the folder on this machine that stands for a remote one."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dsgkd" / hashlib.sha256(of.encode()).hexdigest()[:16]


def as_json(config: StudyConfig) -> dict[str, Any]:
    """Return everything that decides a study's outcome, as JSON values."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return result


def check_same(stored: Mapping[str, Any], given: Mapping[str, Any], name: str) -> None:
    """Refuse to go on with a study that was begun with another question.

    Raises:
        InputError: names the first field that differs.
    """
    before, now = _leaves(stored), _leaves(given)
    declared = not before.get("search.trials")
    if declared != (not now.get("search.trials")):
        begun, remedy = ("without", "--trials 0") if declared else ("with", "the same --trials")
        raise InputError(
            f"study {name}", f"it was begun {begun} a search", f"give {remedy}, or another --name"
        )
    for key in sorted(before.keys() & now.keys()):  # a newer dsgkd may know more fields
        free = any(key == one or key.startswith(f"{one}.") for one in _FREE)
        free &= not (declared and key == "initial_points")  # which are the question then
        if not free and before[key] != now[key]:
            raise InputError(
                f"study {name}",
                f"'{key}' was {before[key]} and is now {now[key]}",
                "give the same flags, or another --name",
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
