"""The lines that a study prints about itself."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from dsgkd.data.config import SPLITS
from dsgkd.data.notes import Notes
from dsgkd.study.config import StudyConfig
from dsgkd.study.declared import Declared
from dsgkd.study.history import TrialHistory
from dsgkd.study.search.arms import PLAIN
from dsgkd.study.search.config import ParameterPoint


def notes_line(notes: Notes) -> str:
    """Return how many notes there are of each split."""
    counts = Counter(notes.table["split"].to_pylist())
    sizes = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts[split])
    classes = len(notes.label_names)
    return f"{notes.name}: {len(notes.table):,} notes ({sizes}; test sealed), {classes} classes"


def plan_line(config: StudyConfig) -> str:
    """Return what a study is going to do."""
    seeds, top = config.confirmation.seeds, config.confirmation.top
    fresh = f"{seeds} fresh seed{'' if seeds == 1 else 's'}"
    if not config.search.trials:
        each = len(Declared(config, config.run).runs)
        return (
            f"no search: {each * len(config.arms)} declared configurations confirmed ({each} of "
            f"each method), on {fresh}"
        )
    shares = ", ".join(f"{share} {method}" for method, share in config.budgets.items())
    best = f"of the best {'' if top == 1 else f'{top} '}of each"
    return f"{config.search.trials} search trials ({shares}), then {fresh} {best}"


def kept_line(point: ParameterPoint) -> str:
    """Return the values of the baseline that all methods keep."""
    values = (
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in point.items()
    )
    return f"best of {PLAIN}, kept by all: {', '.join(values)}"


def stuck_lines(past: Iterable[TrialHistory]) -> list[str]:
    """Return, for each method, which of its confirmed runs never left the chance level."""
    runs: dict[str, list[TrialHistory]] = defaultdict(list)
    for trial in past:
        if trial.stage in ("confirm", "control") and trial.state == "complete":
            runs[trial.method].append(trial)
    found = []
    for method, group in runs.items():
        stuck = [trial.trial_id for trial in group if trial.row.get("stuck")]
        if stuck:
            found.append(
                f"{len(stuck)} of {len(group)} run{'' if len(group) == 1 else 's'} of {method} "
                f"never left the chance level: {', '.join(sorted(stuck))}"
            )
    return found
