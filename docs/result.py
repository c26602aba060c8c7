"""Draw the README's picture, `docs/result.svg`, from a study: `python docs/result.py runs/NAME`."""

import sys
from pathlib import Path

import matplotlib as mpl

import analysis
from analysis import plots


def draw(study: Path, target: Path) -> None:
    """Draw the arms of a study and their differences; the same ledger gives the same bytes."""
    results = analysis.load(study)
    runs, differences = analysis.confirmed(results), analysis.differences(results)
    with mpl.rc_context({"svg.hashsalt": "dsgkd", "svg.fonttype": "none"}):
        figure = plots.arms_and_differences(runs, differences, results.objective())
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).parent / "result.svg")
