"""The manifest of a study: its row in the ledger, checked when it is resumed."""

import json
import secrets
from collections.abc import Container
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dsgkd.data.identity import id_key, keyed
from dsgkd.data.notes import Notes
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.models.fingerprint import fingerprint
from dsgkd.study.config import StudyConfig, as_json, check_same
from dsgkd.study.history import TrialHistory, close_lost, read_history
from dsgkd.study.names import PublicNames
from dsgkd.study.objectives import direction_of
from dsgkd.study.preparation.environment import environment, hardware, lock_hash, versions
from dsgkd.study.search.rungs import FirstRung
from dsgkd.training.on_the_fly import model_reference

PRIVATE = "study.json"
"""In the study's folder: its configuration with the paths of this machine."""
_FIRST_RUNG = "first_rung"
"""In the budget: the choice that early stopping has made."""


class StudyManifest:
    """A study in its ledger: begun, resumed, extended."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self.names = PublicNames(config)
        self.ledger = Ledger(config.location.child("ledger"))
        self.study_id = ""
        self.past: dict[str, TrialHistory] = {}
        """Trials by name, as they were when last read."""

    def exists(self) -> bool:
        """Whether the study was begun."""
        return self.ledger.exists()

    def begin(self, notes: Notes) -> None:
        """Write the study's row."""
        config = self._config
        self.study_id = f"{config.name}-{secrets.token_hex(4)}"
        row = {
            "study_id": self.study_id,
            "name": config.name,
            "created_at": datetime.now(UTC),
            **versions(),
            "hardware": hardware(),
            "data_fingerprint": notes.fingerprint,
            **_counts(notes),
            "measures": dict(config.run.task.measures),
            "objective": config.run.selection.objective,
            "seed": config.seed,
            "lock_hash": lock_hash(),
            "environment": environment(),
            "key_check": keyed(id_key(config.cache), ""),
        }
        self.ledger.write("studies", [row | self._asked_for()], "study")
        self._write_private()

    def resume(self, notes: Notes) -> None:
        """Check that it is the same study on the same data, and read what was done.

        Raises:
            InputError: it is another study.
        """
        row = self._row()
        self.study_id = row["study_id"]
        self.check_data(notes)
        self._check_cache(row)
        given = self.names.configuration(self._config)
        check_same(row["configuration"], given, row["name"])
        self.read()
        close_lost(self.ledger, self.past)
        self.read()
        self.ledger.seal(
            *(
                f"{trial.trial_id}-{attempt}"
                for trial in self.past.values()
                for attempt in range(1, trial.attempts + 1)
            )
        )

    def extend(self) -> None:
        """Write down what the study is asked now, where it was asked for something else before."""
        self._write_private()
        row, now = self._row(), self._asked_for()
        budget = dict(row["budget"])
        earlier, chosen = budget.pop("earlier", []), _chosen(budget)
        if budget != now["budget"]:
            now["budget"] = now["budget"] | {"earlier": [*earlier, budget]} | chosen
            now["models"] = row["models"] | now["models"]
            self.ledger.write("studies", [row | now], "study")

    @property
    def first_rung(self) -> FirstRung | None:
        """The first rung that was chosen from curves; None: none was yet."""
        chosen = (self._row()["budget"] or {}).get(_FIRST_RUNG)
        return None if chosen is None else FirstRung(**chosen)

    def note_first_rung(self, rung: FirstRung) -> None:
        """Write down the first rung, so that the study goes on with the same one."""
        row = self._row()
        budget = row["budget"] | {_FIRST_RUNG: asdict(rung)}
        self.ledger.write("studies", [row | {"budget": budget}], "study")

    def _write_private(self) -> None:
        """Write down where everything lies, beside the ledger, which does not say."""
        text = json.dumps({"configuration": as_json(self._config)}, indent=1)
        self._config.location.write(PRIVATE, text.encode())

    def check_data(self, notes: Notes) -> None:
        """Refuse other data than the study began with.

        Raises:
            InputError: they are others.
        """
        if self._row()["data_fingerprint"] != notes.fingerprint:
            raise InputError(
                notes.name,
                "not the data that the study began with",
                "start a new study with --name",
            )

    def _check_cache(self, row: dict[str, Any]) -> None:
        """Refuse another key of the ids, or other weights behind a model's name."""
        cache = self._config.cache
        if row["key_check"] not in (None, keyed(id_key(cache), "")):
            raise InputError(
                str(cache), "its key of the ids is another study's", "use the cache of then"
            )
        now = self._fingerprints(row["models"])  # of the others, some may not be built yet
        for name, weights in now.items():
            if row["models"][name] != weights:
                raise InputError(
                    f"model {name}",
                    "other weights than the study began with",
                    "use those of then, or start a new study with --name",
                )

    def _fingerprints(self, known: Container[str] | None = None) -> dict[str, str]:
        """Return the weights of the study's models, or of those known, by their public names."""
        names = {self.names.public(name): name for name in self._config.models}
        return {
            public: fingerprint(model_reference(name, self._config.cache, self._config.run.world))
            for public, name in names.items()
            if known is None or public in known
        }

    def read(self) -> None:
        """Read the trials again."""
        objective = self._config.run.selection.objective
        direction = direction_of(objective, self._config.run.task.measures)
        self.past = read_history(self.ledger, objective, direction)

    def is_done(self, trial_id: str) -> bool:
        """Whether a trial is not to be run again."""
        return trial_id in self.past and self.past[trial_id].finished

    def _row(self) -> dict[str, Any]:
        return self.ledger.rows("studies")[0]

    def _asked_for(self) -> dict[str, Any]:
        """Return the columns that change when a study is extended."""
        config = self._config
        return {
            "configuration": self.names.configuration(config),
            "models": self._fingerprints(),
            "arms": {method: {"role": arm.role} for method, arm in config.arms.items()},
            "budget": {
                "trials": config.search.trials,
                "epochs": config.run.optimisation.most_epochs,
                "confirm_top": config.confirmation.top,
                "confirm_seeds": config.confirmation.seeds,
                "controls": self.names.public(list(config.confirmation.controls)),
            },
        }


def _chosen(budget: dict[str, Any]) -> dict[str, Any]:
    """Take out of a budget what was chosen on the way, and return it."""
    return {_FIRST_RUNG: budget.pop(_FIRST_RUNG)} if _FIRST_RUNG in budget else {}


def _counts(notes: Notes) -> dict[str, Any]:
    """Return how many rows, labels and patients each split has, and the subgroups."""
    table = notes.table.select(["split", "label"]).to_pandas()
    labels = {}
    for split, part in table.groupby("split"):
        counts = part["label"].value_counts().sort_index()
        labels[split] = {notes.label_names[label]: int(n) for label, n in counts.items()}
    return {
        "row_counts": {split: int(n) for split, n in table["split"].value_counts().items()},
        "label_counts": labels,
        "patients": notes.patients(),
        "subgroups": notes.subgroup_counts(),
    }
