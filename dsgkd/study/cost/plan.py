"""The plan of a study: what it will cost, and what its trials would have cost elsewhere."""

from collections.abc import Sequence
from dataclasses import replace

from dsgkd.ledger import Ledger
from dsgkd.study.config import StudyConfig
from dsgkd.study.console import Console
from dsgkd.study.cost.curves import curves
from dsgkd.study.cost.estimate import Estimate, LinkCost, StudyShape, estimate_lines
from dsgkd.study.cost.links import plan_links
from dsgkd.study.cost.profile import time_methods
from dsgkd.study.cost.replay_table import replay_lines
from dsgkd.study.history import read_history
from dsgkd.study.objectives import direction_of
from dsgkd.study.preparation.teachers import StoredTeacherPlan
from dsgkd.training.config import RunConfig
from dsgkd.training.recipe import links_of


def print_estimate(
    config: StudyConfig,
    run: RunConfig,
    plans: Sequence[StoredTeacherPlan],
    concurrent: int,
    console: Console,
) -> None:
    """Time a few steps of distillation and of the baseline, and say what the study will cost.

    Args:
        config: the study.
        run: what trials have in common, with teachers either stored or live.
        plans: the teachers that are stored before the search.
        concurrent: trials at a time.
        console: takes the lines.
    """
    teacher = replace(run.distillation, teacher=config.teachers[0])
    given = replace(run, distillation=teacher)
    arms = [arm for arm in config.arms.values() if arm.role != "control"]
    timed = {arm.method: arm.applied(given) for arm in arms}
    links = plan_links(config, given)
    alone = {repr(link.alone): links_of(link.alone, config.cache)[0].run for link in links}
    cluster, confirmation = config.cluster, config.confirmation
    costs = time_methods(
        *(timed | alone, config.cache, config.teacher_store, cluster.resources),
        *(cluster.workers_per_trial, config.shared_cache),
    )
    stored = plans if run.distillation.teacher_store == "stored" else ()
    shape = StudyShape(
        trials=config.budgets,
        epochs=run.optimisation.most_epochs,
        confirm=dict.fromkeys(config.arms, confirmation.top * confirmation.seeds),
        concurrent=concurrent,
        workers=cluster.workers_per_trial,
        gpus=cluster.gpus_per_worker,
        pruning=config.pruning,
        teachers=len(stored),
        teacher_bytes=sum(plan.size() for plan in stored),
        links=[
            LinkCost(link.name, costs[repr(link.alone)], link.epochs, link.search, link.confirm)
            for link in links
        ],
    )
    methods = {method: costs[method] for method in timed}
    for line in estimate_lines(Estimate(methods), shape, config.budget.price_per_gpu_hour):
        console.print(line)


def print_replays(config: StudyConfig, ledger: Ledger, console: Console) -> None:
    """Play the trials of a study again on other clusters and under other schedulers, and say what
    that would have cost and found.
    """
    objective = config.run.selection.objective
    direction = direction_of(objective, config.run.task.measures)
    played = curves(read_history(ledger, objective, direction).values())
    console.print()
    for line in replay_lines(played, config.pruning, price=config.budget.price_per_gpu_hour):
        console.print(line)
