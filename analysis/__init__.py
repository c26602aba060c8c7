"""What a study found, from its ledger and nothing else.

    import analysis
    results = analysis.load("runs/my-study")
    print(analysis.report(results))
    results.trials.groupby("method").objective.describe()

Needs pandas and pyarrow; scipy and matplotlib are imported where they are used. Frames come from
`Results`, tables from `analysis.summary`, figures from `analysis.plots`.
"""

from analysis.results import Results, load
from analysis.summary import best, compare, confirmed, differences
from analysis.terminal import report
from dsgkd.ledger import NotALedger

__all__ = [
    "NotALedger",
    "Results",
    "best",
    "compare",
    "confirmed",
    "differences",
    "load",
    "report",
]
