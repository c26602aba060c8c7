"""Which measures are there, and is more or less of them better? Importing this costs nothing."""

MEASURES = ("loss", "accuracy", "auroc", "auprc", "f1", "precision", "recall", "brier", "ece")
SMALLER_IS_BETTER = frozenset({"loss", "brier", "ece"})


def improvement(measure: str, value: float) -> float:
    """Return `value` with the sign that makes larger better."""
    return -value if measure in SMALLER_IS_BETTER else value
