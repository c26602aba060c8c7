"""Draw the README's picture, `docs/result.svg`, from a study: `python docs/result.py runs/NAME`."""

import sys
from pathlib import Path

import matplotlib as mpl

import analysis
from analysis import plots


def draw(study: Path, target: Path) -> None:
    """Write the test measures of all confirmed models; the same ledger gives the same bytes."""
    results = analysis.load(study)
    with mpl.rc_context({"svg.hashsalt": "dsgkd", "svg.fonttype": "none"}):
        figure = plots.methods(analysis.confirmed(results), results.studies.objective.iloc[0])
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).parent / "result.svg")
