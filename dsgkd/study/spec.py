"""A trial as data: everything that a worker needs to run one attempt of it."""

from dataclasses import dataclass, field
from typing import Any

from dsgkd.distillation.store.config import StoreConfig
from dsgkd.training.config import RunConfig

LINK = "link"
"""Stage of the trials that make artefacts for others."""


@dataclass(frozen=True)
class PlannedTrial:
    """What is to be run, before it is known where and as which attempt."""

    stage: str
    method: str
    trial_id: str
    run: RunConfig
    parent: str = ""
    """As in `TrialSpec`."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As in `TrialSpec`."""


@dataclass(frozen=True)
class TrialSpec:
    """One attempt at a trial."""

    study_id: str
    trial_id: str
    """Stable over resumption, like `search-mlkd-003`."""
    attempt: int
    stage: str
    """`search`, `confirm`, `control`, `test` or `link`."""
    method: str
    """The arm."""
    run: RunConfig
    parent: str = ""
    """The trial from which this one follows: the search trial of a confirmed run, the confirmed run
    of a reading of the test split."""
    needs: tuple["TrialSpec", ...] = ()
    """The trials of stage `link` whose artefacts this one starts from, in order."""
    key: str = ""
    """Of a link: the content hash of its artefact."""
    folder: str = ""
    """Folder or URI of its checkpoints and its model."""
    cache: str = ""
    """Local folder of tokenised texts and small models."""
    shared_cache: str = ""
    """URI of what machines without a folder in common have to share; empty: there is one."""
    artefacts: str = ""
    """Folder or URI of what links have made."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """Where teachers are stored."""
    own_teacher: str = ""
    """Where the teacher is stored that no other trial has; removed when the trial is over."""
    ledger: str = ""
    scratch: str = ""
    """For Ray's own files; removed when the study ends."""
    keep_model: bool = False
    """Whether the trained student is kept."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the search drew: name -> value and distribution, enough for another Optuna study."""
    known_epochs: int = 0
    """Epochs whose figures earlier attempts have reported."""
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrialSpec":
        """Return itself: it does not change, and Tune keeps four copies of what it is given."""
        return self

    def __str__(self) -> str:
        """Return the attempt's name; Tune writes this, and no more, into its logs."""
        return f"{self.trial_id}-{self.attempt}"
