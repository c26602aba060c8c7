import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsgkd.cli import main


@pytest.fixture
def run_cli(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `dsgkd ...` in this process: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dsgkd", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def short(notes_csv: Path, zoo: Path) -> list[str]:
    """Flags of a run that takes a second."""
    return [
        *("--data", str(notes_csv), "--student", str(zoo / "student")),
        *("--teacher", str(zoo / "teacher"), "--max-length", "48", "--device", "cpu"),
        *("--epochs", "2", "--batch-size", "8"),
        *("--optimisation.precision", "fp32"),
    ]
