"""The notebook runs from top to bottom on a ledger, and is stored without results."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from small_study import World

NOTEBOOK = Path(__file__).parents[2] / "analysis" / "notebooks" / "first_look.ipynb"


def cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_no_results_are_stored() -> None:
    for cell in cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(
    study: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDY", study.ledger.root)
    scope: dict[str, Any] = {"__name__": "__main__"}
    figures = 0
    for cell in cells():
        lines = "".join(cell["source"]).splitlines()
        code = "\n".join(line for line in lines if not line.startswith("%"))
        if "=" in code.splitlines()[-1] or "print(" in code:
            exec(code, scope)
        else:
            figures += isinstance(eval(code, scope), Figure)
    assert figures == 5
    assert "Domain knowledge moved: mlkd" in capsys.readouterr().out
