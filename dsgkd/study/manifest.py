"""Which study is it, and what was done in it? The ledger's row of the study, and its trials."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsgkd.data.identity import id_key, keyed
from dsgkd.data.sources import Notes
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.models.fingerprint import fingerprint
from dsgkd.models.on_the_fly import model_reference
from dsgkd.study.config import StudyConfig, as_json, check_same
from dsgkd.study.history import TrialHistory, close_lost, read_history
from dsgkd.study.preparation.environment import environment, hardware, lock_hash, versions


class StudyManifest:
    """A study's ledger, from the study's side: begun, gone on with, extended."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self.ledger = Ledger(str(config.folder / "ledger"))
        self.study_id = ""
        self.past: dict[str, TrialHistory] = {}
        """Trials by name, as they were when last read."""

    def exists(self) -> bool:
        """Whether the study was begun."""
        return self.ledger.exists()

    def begin(self, notes: Notes) -> None:
        """Write the study's row."""
        self.study_id = f"{self._config.name}-{secrets.token_hex(4)}"
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
            "name": self._config.name,
            "created_at": datetime.now(UTC),
            **versions(),
            "hardware": hardware(),
            "data_fingerprint": notes.fingerprint,
            "row_counts": {split: int(n) for split, n in table["split"].value_counts().items()},
            "label_counts": labels,
            "configuration": as_json(self._config),
            "seed": self._config.seed,
            "budget": self._asked_for(),
            "lock_hash": lock_hash(),
            "environment": environment(),
            "models": self._models(),
            "key_check": keyed(id_key(self._config.cache), ""),
        }
        self.ledger.write("studies", [row], "study")

    def resume(self, notes: Notes) -> None:
        """Check that it is the same study on the same data, and read what was done.

        Raises:
            InputError: it is another study.
        """
        row = self._row()
        self.study_id = row["study_id"]
        self.check_data(notes)
        self._check_cache(row)
        check_same(json.loads(row["configuration"]), as_json(self._config), row["name"])
        self.read()
        close_lost(self.ledger, self.past)
        self.read()
        self.ledger.seal(
            *(
                f"{trial.trial_id}-{attempt}"
                for trial in self.past.values()
                for attempt in range(1, trial.attempts + 1)
                if trial.method  # a seal that was broken can still be open
            )
        )

    def extend(self) -> None:
        """Write down what the study is asked now, where it was asked for something else before."""
        row = self._row()
        budget = json.loads(row["budget"])
        earlier = budget.pop("earlier", [])
        if budget != self._asked_for():
            changed = {
                "configuration": as_json(self._config),
                "budget": self._asked_for() | {"earlier": [*earlier, budget]},
            }
            self.ledger.write("studies", [row | changed], "study")

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
        if row.get("key_check") not in (None, keyed(id_key(cache), "")):
            raise InputError(
                str(cache), "its key of the ids is another study's", "use the cache of then"
            )
        for name, weights in json.loads(row.get("models") or "{}").items():
            reference = model_reference(name, cache)
            if name in self._config.models and fingerprint(reference) != weights:
                raise InputError(
                    f"model {Path(name).name}",
                    "other weights than the study began with",
                    "use those of then, or start a new study with --name",
                )

    def _models(self) -> dict[str, str]:
        cache = self._config.cache
        return {
            name: fingerprint(model_reference(name, cache))
            for name in dict.fromkeys(self._config.models)
        }

    def read(self) -> None:
        """Read the trials again."""
        self.past = read_history(self.ledger, self._config.run.selection.objective)

    def is_done(self, trial_id: str) -> bool:
        """Whether a trial is not to be run again."""
        return trial_id in self.past and self.past[trial_id].finished

    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = self.ledger.read("studies").to_pylist()[0]
        return row

    def _asked_for(self) -> dict[str, Any]:
        config = self._config
        return {
            "trials": config.search.trials,
            "epochs": config.run.optimisation.epochs,
            "confirm_top": config.confirmation.top,
            "confirm_seeds": config.confirmation.seeds,
            "controls": list(config.confirmation.controls),
        }
