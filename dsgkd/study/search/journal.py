"""The journal that `optuna-dashboard` opens: a file in Optuna's format, derived from the ledger.

The file is written by one process (a study's driver holds the study's lock) and is derived from
the ledger. So what others write into it (a study can be deleted in the dashboard) is not read until
the study is resumed, and it needs neither Optuna's lock file, which a killed process would leave
behind, nor a disk flush for every report. What a kill cut off in the middle of a line is cut away
when the file is opened.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from dsgkd.errors import StorageError


class Journal(BaseJournalBackend):
    """Optuna's journal, appended to without locks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _repair(path)
            self._reader = JournalFileBackend(str(path))
            self._logs: list[dict[str, Any]] | None = None
        except OSError as error:
            raise StorageError.of(path, error) from error

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the entries from a number on: those of the file as it was, and our own."""
        return self._known()[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, one a line.

        Raises:
            StorageError: the disk is full, or the file cannot be written.
        """
        known = self._known()
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        try:
            with self._path.open("ab") as file:
                file.write("".join(line + "\n" for line in lines).encode())
        except OSError as error:
            raise StorageError.of(self._path, error) from error
        known += map(json.loads, lines)

    def _known(self) -> list[dict[str, Any]]:
        if self._logs is None:
            self._logs = list(self._reader.read_logs(0))
        return self._logs

    def set_aside(self) -> None:
        """Rename the file, so that a new one can take its place."""
        number = 1
        while (damaged := self._path.with_suffix(f".damaged-{number}")).exists():
            number += 1
        os.replace(self._path, damaged)


def _repair(path: Path) -> None:
    """Cut a last line that was not written to its end."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
