"""A small study whose true effects are known, written as a real study writes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import analysis
from analysis.delong import auroc
from dsgkd.ledger import Ledger

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EPOCHS = 4
LEVEL = {"plain": 0.80, "mlkd": 0.83, "random-teacher": 0.81}
SEEDS = (17, 18, 19, 20)
MEASURES = {
    "auroc": "maximise",
    "auprc": "maximise",
    "f1": "maximise",
    "accuracy": "maximise",
    "brier": "minimise",
}
ROLES = {"plain": "baseline", "mlkd": "method"}


class World:
    """Writes the trials of a study into a ledger, one file per trial as a real study does."""

    def __init__(
        self,
        folder: Path,
        name: str = "first",
        objective: str = "auroc",
        controls: tuple[str, ...] = ("random-teacher", "shuffled-words", "a-new-one"),
        measures: dict[str, str] = MEASURES,
    ) -> None:
        self.ledger, self.study, self.count = Ledger(folder / name / "ledger"), name, 0
        self.confirmed: dict[str, dict[str, Any]] = {}
        self.readings = 0
        self.random = np.random.default_rng(5)
        self.ledger.write(
            "studies",
            [
                {
                    "study_id": name,
                    "name": name,
                    "created_at": START,
                    "configuration": {"epochs": EPOCHS},
                    "objective": objective,
                    "measures": measures,
                    "arms": {
                        arm: {"role": role}
                        for arm, role in (ROLES | dict.fromkeys(controls, "control")).items()
                    },
                    "row_counts": {"train": 240, "validation": 80, "test": 80},
                    "seed": 17,
                }
            ],
            "study",
        )

    def trial(
        self,
        method: str,
        stage: str,
        final: float,
        state: str = "complete",
        configuration: int = 1,
        **columns: Any,
    ) -> str:
        """Write one trial that reaches `final` (AUROC on validation).

        Columns that the table does not have are settings.
        """
        row = self._row(method, stage, state, configuration, final)
        given = {key: columns.pop(key) for key in list(columns) if key not in row}
        trial = row | columns | {"settings": row["settings"] | given}
        name = f"{trial['trial_id']}-{trial['attempt']}"
        self.ledger.write("trials", [trial], name)
        key = {column: trial[column] for column in ("study_id", "trial_id", "attempt")}
        rows: list[dict[str, Any]] = []
        for epoch in range(EPOCHS):
            value = final - 0.05 * abs(EPOCHS - 1 - epoch)
            for split, change in (("train", 0.02), ("validation", 0.0)):
                rows.append(self._measures(split, value + change) | {**key, "epoch": epoch})
        self.ledger.write("metrics", rows, name)
        if stage != "search" and state == "complete":
            self.confirmed[str(trial["trial_id"])] = trial | {"final": final}
        return str(trial["trial_id"])

    def _row(
        self, method: str, stage: str, state: str, configuration: int, final: float
    ) -> dict[str, Any]:
        self.count += 1
        begun = START + timedelta(minutes=self.count)
        row = {
            "study_id": self.study,
            "trial_id": f"search-{method}-{self.count:03d}",
            "attempt": 0,
            "stage": stage,
            "state": state,
            "method": method,
            "reason": None,
            "parent": None,
            "settings": {"student": "tiny-ko", "encoder_lr": 3e-4, "batch_size": 32},
            "seed": 17,
            "workers": 1,
            "started_at": begun,
            "ended_at": begun + timedelta(seconds=30),
            "epochs_done": EPOCHS,
            "best_epoch": EPOCHS - 1,
            "objective": final if state == "complete" else None,
            "worker_seconds": 30.0,
            "gpu_seconds": 0.0,
        }
        if method != "plain":
            row["settings"] |= {"teacher": "en-med", "layer_mapping": "uniform", "alpha": 2.5}
        if stage != "search":  # a seed of its own, unless the caller gives one with its name
            row["trial_id"] = f"run-{self.count:03d}"
            row["parent"] = f"search-{method}-{configuration:03d}"
        return row

    def test(
        self,
        state: str = "complete",
        begun: datetime = START + timedelta(days=1),
        again: bool = False,
        change: float = -0.01,
    ) -> None:
        """Open the test split: the models that have not read it (`again`: all) do so.

        Their AUROC changes by `change` from validation to test.
        """
        self.readings += 1
        rows = [row for row in self.confirmed.values() if again or not row.get("read")]
        closed = begun + timedelta(minutes=5) if state == "complete" else None
        reading = {"study_id": self.study, "read": self.readings, "models": len(rows)}
        reading |= {"opened_at": begun, "closed_at": closed}
        self.ledger.write("test_reads", [reading], f"read-{self.readings:03d}")
        for row in rows:
            row["read"] = True
            self.count += 1
            key = {
                "study_id": self.study,
                "trial_id": f"reading-of-{row['trial_id']}",
                "attempt": self.readings,
            }
            kept = ("method", "seed", "settings", "workers")
            trial = key | {column: row[column] for column in kept} | {"parent": row["trial_id"]}
            trial |= {"worker_seconds": 10.0, "state": state, "stage": "test", "started_at": begun}
            file = f"{key['trial_id']}-{self.readings}"
            self.ledger.write("trials", [trial], file)
            if state == "complete":
                measured = self._measures("test", row["final"] + change) | key
                self.ledger.write("metrics", [measured], file)

    def _measures(self, split: str, auroc: float) -> dict[str, Any]:
        return {
            "split": split,
            "step": 8,
            "loss": 1.2 - auroc,
            "measures": {
                "auroc": auroc,
                "auprc": auroc - 0.1,
                "f1": auroc - 0.15,
                "accuracy": auroc - 0.05,
                "brier": 1 - auroc,
            },
            "examples_per_second": 80.0,
        }

    def search(self) -> None:
        for method in ("plain", "mlkd"):
            for alpha in (0.5, 1.0, 4.0, 8.0):
                given = {"alpha": alpha} if method == "mlkd" else {"encoder_lr": alpha / 1e4}
                final = LEVEL[method] - 0.01 * abs(alpha - 4)
                self.trial(method, "search", final, warm_up=0.25, **given)
        self.trial("mlkd", "search", 0.7, "pruned", reason="rung 1")
        self.trial("mlkd", "search", 0.7, "failed", reason="out of memory")

    def confirm(
        self,
        seeds: tuple[int, ...] = SEEDS,
        noise: float = 0.002,
        levels: dict[str, float] = LEVEL,
        test: bool = True,
    ) -> None:
        for seed in seeds:
            shift = 0.01 * self.random.standard_normal()  # shared by the methods: pairs matter
            for method, level in levels.items():
                stage = "confirm" if method in ROLES else "control"
                final = level + shift + noise * self.random.standard_normal()
                self.trial(method, stage, final, seed=seed)
        if test:
            self.test()

    def predict(self) -> None:
        rows = [
            {
                "study_id": self.study,
                "trial_id": "search-plain-001",
                "attempt": 0,
                "split": "test",
                "example_id": f"{i:032x}",
                "label": i % 2,
                "probability": [0.5, 0.5],
            }
            for i in range(6)
        ]
        self.ledger.write("predictions", rows, "search-plain-001-0-test")

    def confirm_with_predictions(
        self,
        separation: dict[str, float],
        seeds: tuple[int, ...] = SEEDS,
        notes: int = 120,
        per_patient: int = 1,
    ) -> None:
        """Confirm arms whose scores of the classes are so far apart; test and write predictions."""
        labels = self.random.integers(2, size=notes)
        hard = dict(zip(separation, self.random.normal(size=(len(separation), notes))))
        written = {}
        for seed in seeds:
            for method, apart in separation.items():
                stage = "confirm" if method in ROLES else "control"
                scores = apart * labels + hard[method] + 0.5 * self.random.normal(size=notes)
                probability = 1 / (1 + np.exp(-scores))
                probability = np.stack([1 - probability, probability], 1).astype(np.float32)
                value, _ = auroc(labels == 1, probability[None, :, 1].astype(float))
                written[self.trial(method, stage, float(value[0]), seed=seed)] = probability
        self.test(change=0.0)
        for trial, probability in written.items():
            rows = [
                {
                    "study_id": self.study,
                    "trial_id": f"reading-of-{trial}",
                    "attempt": self.readings,
                    "split": "test",
                    "example_id": f"{note:032x}",
                    "group_id": f"{note // per_patient:032x}" if per_patient > 1 else None,
                    "label": int(labels[note]),
                    "probability": probability[note].tolist(),
                    "subgroups": {"ward": "ab"[note % 2]},
                }
                for note in range(notes)
            ]
            self.ledger.write("predictions", rows, f"reading-of-{trial}")

    def results(self) -> analysis.Results:
        return analysis.load(self.ledger.root)
