"""How many links of recipes a study makes, and what each is like.

A link whose settings are equal in several trials is made once. The seed is one of its settings, so
every fresh seed of confirmation needs its own; and so does every trial of a search, where the link
takes over values that are searched.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from dsgkd.study.config import StudyConfig
from dsgkd.study.search.arms import Arm
from dsgkd.training.config import AdaptationConfig, RunConfig


@dataclass(frozen=True)
class LinkPlan:
    """A link that some arms share."""

    name: str
    """For people, such as `adapt (mlkd)`."""
    alone: RunConfig
    """A run with no other link, whose steps cost what this one's do: for a control, that of
    distillation."""
    epochs: int
    """Evaluations of it, at most."""
    search: int
    """So many are made for the search."""
    confirm: int
    """So many are made for the confirmation."""


def plan_links(config: StudyConfig, given: RunConfig) -> list[LinkPlan]:
    """Return the links of a study, each once.

    Args:
        config: the study.
        given: what trials have in common, with a teacher.
    """
    sharing: dict[str, list[tuple[Arm, int]]] = defaultdict(list)
    for arm in config.arms.values():
        for at in range(len(arm.applied(given).chain)):
            sharing[_until(arm, given, at)].append((arm, at))
    return [
        _plan(config, given, [arm for arm, _ in found], found[0][1]) for found in sharing.values()
    ]


def _plan(config: StudyConfig, given: RunConfig, arms: list[Arm], at: int) -> LinkPlan:
    first = arms[0]
    other = _otherwise_drawn(config, given)
    follows = _until(first, given, at) != _until(first, other, at)
    seeds = config.confirmation.seeds
    trials = [config.budgets.get(arm.method, 0) for arm in arms]
    as_mlkd = replace(first, teacher="", weights="pretrained", shuffled=False)
    link = as_mlkd.applied(given).chain[at]
    return LinkPlan(
        f"{link.name} ({', '.join(arm.method for arm in arms)})",
        replace(given, adaptation=AdaptationConfig(), links=(link,)),
        link.optimisation.most_epochs,
        sum(trials) if follows else int(any(trials)),
        seeds * (config.confirmation.top * len(arms) if follows else 1),
    )


def _until(arm: Arm, given: RunConfig, at: int) -> str:
    """Return what decides a link besides the seed: it and those before, as text."""
    return repr(arm.applied(given).chain[: at + 1])


def _otherwise_drawn(config: StudyConfig, given: RunConfig) -> RunConfig:
    """Return the run with other values of whatever the search can draw."""
    space, own = config.space, given.distillation
    changes: dict[str, Any] = {}
    if space.function or space.alpha[0] < space.alpha[1]:
        changes["alpha"] = own.alpha + 1
    if space.function or space.beta[0] < space.beta[1]:
        changes["beta"] = own.beta + 1
    if space.function or len(space.cs_max_len) > 1:
        changes["max_transfer_words"] = own.max_transfer_words + 1
    if others := [mapping for mapping in space.mappings if mapping != own.mapping]:
        changes["mapping"] = others[0]
    if others := [teacher for teacher in config.teachers if teacher != own.teacher]:
        changes["teacher"] = others[0]
    return replace(given, distillation=replace(own, **changes))
