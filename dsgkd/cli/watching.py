"""Who watches a study? Flags on the terminal's table, trackers, and whoever is told at the end."""

import argparse

from dsgkd.study.callbacks.services import SERVICES


def watching_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--track`, `--on-end` and `--plain-progress`."""
    watching = parser.add_argument_group("watching")
    watching.add_argument(
        "--track",
        action="append",
        choices=list(SERVICES),
        default=[],
        help="also give settings, losses and validation measures (no text, no file names) to a "
        "tracker; repeatable. tensorboard: in the study's folder. mlflow: there too, or on the "
        "server that MLFLOW_TRACKING_URI names. wandb: kept in the study's folder until you run "
        "wandb sync; with WANDB_MODE=online they leave your building as the study runs",
    )
    watching.add_argument(
        "--on-end",
        default="",
        metavar="CMD_OR_URL",
        help="a shell command, run when the study is over with DSGKD_STUDY, DSGKD_NAME, "
        "DSGKD_STATE and DSGKD_SUMMARY in its environment, or an http(s) address that is posted "
        "these as JSON",
    )
    watching.add_argument(
        "--plain-progress",
        action="store_true",
        help="print plain lines on a terminal too, instead of a live table",
    )
