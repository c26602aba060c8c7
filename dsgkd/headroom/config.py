"""How thoroughly the headroom is measured, and from how much on a study is worth it."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from dsgkd.configuration import Count, Seed, config


@config
class HeadroomConfig:
    """How thoroughly the headroom is measured, and from how much on a study is worth it."""

    folds: Annotated[int, Ge(2), Le(100)] = 5
    """Parts into which the training notes are cut; each is predicted from the others."""
    repeats: Annotated[int, Ge(1), Le(1000)] = 3
    """Cuts into folds."""
    layers: Annotated[int, Ge(1), Le(1000)] = 4
    """Layers of a teacher that are looked at, spread over its depth, the last one among them."""
    random_teachers: Annotated[int, Ge(1), Le(100)] = 3
    """Random weights of each teacher's architecture that are drawn; how much their gains differ
    widens the interval of the difference to them."""
    label_counts: tuple[Annotated[int, Ge(10), Le(10**9)], ...] = (50, 100, 300, 1000)
    """Numbers of labels of the learning curve, as far as there are so many; none: no curve."""
    most_notes: Annotated[int, Ge(50), Le(10**9)] = 2000
    """Of more training notes, so many are drawn, whole patients at a time."""
    components: Annotated[int, Ge(1), Le(10**6)] = 128
    """Principal components that are kept of states that are wider."""
    penalties: Annotated[tuple[Annotated[float, Gt(0), Le(1e9)], ...], MinLen(1)] = (0.1, 1.0, 10.0)
    """Inverse strengths of the penalty of logistic regression, from which every training fold
    chooses; notes have a mean squared norm of one."""
    confidence: Annotated[float, Ge(0.5), Lt(1)] = 0.95
    """Of the intervals; shared out among the teachers where there are several."""
    worth: Annotated[float, Ge(0), Lt(1)] = 0.01
    """The smallest gain of AUROC for which a study would be worth it."""
    seed: Seed = 17
    """Decides folds, random weights and subsamples."""
    least_notes: Count = 20
    """Fewest notes of a class, and of its complement, for which anything is said of it."""
