"""The seal on the test split: every opening is a row of the ledger's `test_reads`."""

from datetime import UTC, datetime
from typing import Any

from dsgkd.ledger import Ledger


class TestAccess:
    """Opens the test split and closes it again; what was opened and not closed is gone on with.

    Args:
        ledger: the study's.
        study_id: the study.
    """

    __test__ = False  # pytest takes it for a test

    def __init__(self, ledger: Ledger, study_id: str) -> None:
        self._ledger = ledger
        reads = [row for row in ledger.rows("test_reads") if row["study_id"] == study_id]
        self._row: dict[str, Any] = {"study_id": study_id, "read": len(reads) + 1}
        if reads and reads[-1]["closed_at"] is None:
            self._row = reads[-1]

    @property
    def earlier(self) -> int:
        """How often it was opened and closed before."""
        return int(self._row["read"]) - 1

    @property
    def opened_at(self) -> datetime | None:
        """When the reading began that has not ended yet; None where there is none."""
        return self._row.get("opened_at")

    def open(self, models: int, fingerprint: str) -> None:
        """Write down that the test split is about to be read, before it is.

        Args:
            models: how many models will read it.
            fingerprint: of the data with the test split.
        """
        self._row.setdefault("opened_at", datetime.now(UTC))
        self._row |= {
            "models": models,
            "data_fingerprint": fingerprint,
            "reason": f"{models} models read the test split",
        }
        self._write()

    def close(self) -> None:
        """Write down that the reading is over."""
        self._row["closed_at"] = datetime.now(UTC)
        self._write()

    def _write(self) -> None:
        self._ledger.write("test_reads", [self._row], f"read-{self._row['read']:03d}")
