"""Which flags does a study have, and what do they mean?"""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from dsgkd.cli.flags import integers
from dsgkd.errors import InputError
from dsgkd.study.config import ClusterConfig, ConfirmationConfig
from dsgkd.study.cost.budget import BudgetConfig
from dsgkd.study.search.pruning import PruningConfig, Scheduler
from dsgkd.study.search.sampling import ParameterPoint, Sampler
from dsgkd.study.search.search import SearchConfig
from dsgkd.study.search.space import point_of
from dsgkd.training.run import RunConfig, paper_preset

T = TypeVar("T")

_BASE = ("encoder_lr", "classifier_lr", "alpha")
"""What the point `base` says; the rest is drawn."""
_SEARCH, _PRUNING = SearchConfig(), PruningConfig()
_CONFIRMATION, _CLUSTER, _BUDGET = ConfirmationConfig(), ClusterConfig(), BudgetConfig()


def training_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on what all trials have in common."""
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=int, default=10, help="at most [%(default)s]")
    training.add_argument("--batch-size", type=int, default=8, help="notes in a step [%(default)s]")
    training.add_argument(
        "--max-length", type=int, default=128, help="tokens of a text [%(default)s]"
    )
    training.add_argument("--seed", type=int, default=17, help="decides everything [%(default)s]")


def search_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on the search."""
    search = parser.add_argument_group("search")
    search.add_argument(
        "--trials",
        type=int,
        default=_SEARCH.trials,
        help="search trials in all; more with --resume extend a study [%(default)s]",
    )
    search.add_argument(
        "--sampler", choices=get_args(Sampler), default=_SEARCH.sampler, help="[%(default)s]"
    )
    search.add_argument(
        "--scheduler",
        choices=get_args(Scheduler),
        default=_PRUNING.scheduler,
        help="what stops unpromising trials early [%(default)s]",
    )
    search.add_argument(
        "--grace-epochs",
        type=int,
        default=_PRUNING.grace_epochs,
        help="no trial is stopped before [%(default)s]",
    )
    search.add_argument(
        "--equal",
        choices=("trials", "seconds"),
        default=_SEARCH.equal,
        help="the methods get the same number of trials, or worker seconds [%(default)s]",
    )
    search.add_argument(
        "--objective",
        action="append",
        default=[],
        metavar="NAME",
        help="a measure or cost weighed against AUROC, such as worker_seconds; repeatable",
    )
    search.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="BOUND",
        help="what the best has to keep to, such as 'recall>=0.9'; repeatable",
    )
    search.add_argument(
        "--first",
        action="append",
        metavar="POINT",
        help="try first: base, paper, or name=value,name=value; repeatable [base and paper]",
    )
    search.add_argument(
        "--grid-points",
        type=int,
        default=_SEARCH.grid_points,
        help="values that --sampler grid takes of a range [%(default)s]",
    )
    search.add_argument(
        "--space", default="", metavar="MODULE:FUNCTION", help="draws runs instead of the ranges"
    )
    search.add_argument(
        "--beta",
        type=float,
        default=0.0,
        metavar="MOST",
        help="search the attention term's weight up to this [%(default)s: off]",
    )
    search.add_argument(
        "--teacher-layers",
        type=integers,
        default=(),
        metavar="LAYERS",
        help="use these layers of the teacher only, such as 6,12 [any]",
    )


def confirmation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on what comes after the search."""
    after = parser.add_argument_group("confirmation and test")
    after.add_argument(
        "--confirm-top",
        type=int,
        default=_CONFIRMATION.top,
        help="configurations of each method that are confirmed [%(default)s]",
    )
    after.add_argument(
        "--confirm-seeds",
        type=int,
        default=_CONFIRMATION.seeds,
        help="fresh seeds of each [%(default)s]",
    )
    after.add_argument(
        "--controls",
        default=",".join(_CONFIRMATION.controls),
        metavar="LIST",
        help="teachers that know nothing: random,shuffled,wrong-domain=MODEL [%(default)s]",
    )
    after.add_argument(
        "--no-tune-controls",
        action="store_true",
        help="do not search the controls: they get distillation's best configuration",
    )
    after.add_argument(
        "--test",
        nargs="?",
        const="once",
        default="",
        choices=("once", "again"),
        help="read the sealed test split with what was confirmed; every reading is recorded "
        "[it stays sealed]",
    )


def budget_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on what a study may cost."""
    budget = parser.add_argument_group("budget (reached: the study stops, and can be resumed)")
    for name, what in (
        ("max-hours", "hours by the clock"),
        ("max-gpu-hours", "hours of GPUs"),
        ("max-cost", "money"),
        ("price-per-gpu-hour", "money for a GPU hour"),
    ):
        budget.add_argument(f"--{name}", type=float, default=0.0, metavar="X", help=what)
    budget.add_argument(
        "--plan",
        action="store_true",
        help="train nothing: say what the study will cost and, where it has run before, what other "
        "clusters and schedulers would have cost and found",
    )


def cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on what a trial takes of the cluster."""
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--max-concurrent", type=int, default=0, help="trials at a time [as many as fit]"
    )
    cluster.add_argument(
        "--workers-per-trial",
        type=int,
        default=_CLUSTER.workers_per_trial,
        help="more than 1: Ray Train [%(default)s]",
    )
    cluster.add_argument(
        "--gpus-per-worker",
        type=float,
        default=_CLUSTER.gpus_per_worker,
        metavar="SHARE",
        help="0.25: four workers share a GPU [%(default)s]",
    )
    cluster.add_argument(
        "--use-gpu",
        action="store_const",
        const=1.0,
        dest="gpus_per_worker",
        help="a GPU for each worker",
    )


def folder_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags on where a study is, and who hears of it."""
    study = parser.add_argument_group("study")
    study.add_argument("--out", default="", help="folder of studies [runs]")
    study.add_argument("--name", default="", help="the study's folder in it [by date and time]")
    study.add_argument(
        "--resume", action="store_true", help="go on with the study of that name, or extend it"
    )


def search_config(flags: argparse.Namespace) -> SearchConfig:
    """Return what the flags say of the search."""
    return SearchConfig(
        trials=flags.trials,
        sampler=flags.sampler,
        equal=flags.equal,
        objectives=tuple(flags.objective),
        constraints=tuple(flags.constraint),
        grid_points=flags.grid_points,
    )


def pruning_config(flags: argparse.Namespace) -> PruningConfig:
    """Return what the flags say of stopping early."""
    return PruningConfig(scheduler=flags.scheduler, grace_epochs=flags.grace_epochs)


def confirmation_config(flags: argparse.Namespace) -> ConfirmationConfig:
    """Return what the flags say of confirmation."""
    return ConfirmationConfig(
        top=flags.confirm_top,
        seeds=flags.confirm_seeds,
        controls=tuple(part.strip() for part in flags.controls.split(",") if part.strip()),
        tune_controls=not flags.no_tune_controls,
    )


def budget_config(flags: argparse.Namespace) -> BudgetConfig:
    """Return what the flags say of the budget."""
    return BudgetConfig(
        flags.max_hours, flags.max_gpu_hours, flags.max_cost, flags.price_per_gpu_hour
    )


def cluster_config(flags: argparse.Namespace) -> ClusterConfig:
    """Return what the flags say of the cluster."""
    return ClusterConfig(
        max_concurrent=flags.max_concurrent,
        workers_per_trial=flags.workers_per_trial,
        gpus_per_worker=flags.gpus_per_worker,
    )


def first_points(flags: argparse.Namespace, run: RunConfig) -> tuple[ParameterPoint, ...]:
    """Return the points to try first.

    Raises:
        InputError: one cannot be read.
    """
    known: dict[str, Callable[[], ParameterPoint]] = {
        "base": lambda: {name: point_of(run)[name] for name in _BASE},
        "paper": lambda: point_of(paper_preset(run)),
    }
    given = flags.first or list(known)
    return tuple(known[text]() if text in known else _point(text) for text in given)


def _point(text: str) -> ParameterPoint:
    point: dict[str, Any] = {}
    for part in text.split(","):
        name, found, value = part.partition("=")
        if not found:
            raise InputError(
                "--first", f"'{text}' cannot be read", "write base, paper, or alpha=3,beta=0"
            )
        point[name.strip()] = _value(value.strip())
    return point


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
