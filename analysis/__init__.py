"""What a study found, from its ledger and nothing else.

    import analysis
    results = analysis.load("runs/my-study")
    print(analysis.report(results))
    results.trials.groupby("method").objective.describe()

Needs pandas and pyarrow; scipy and matplotlib are imported where they are used. Frames come from
`Results`, tables from `analysis.summary`, differences from `analysis.comparison`, what they allow
to be said from `analysis.verdicts`, figures from `analysis.plots`.
"""

from analysis.comparison import by_frequency, by_subgroup, differences
from analysis.results import Results, load
from analysis.summary import best, compare, confirmed
from analysis.terminal import report
from analysis.verdicts import verdict
from dsgkd.ledger import NotALedger

__all__ = [
    "NotALedger",
    "Results",
    "best",
    "by_frequency",
    "by_subgroup",
    "compare",
    "confirmed",
    "differences",
    "load",
    "report",
    "verdict",
]
