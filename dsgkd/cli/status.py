"""Show how a study stands, while it runs or afterwards.

Only the study's ledger is read, so this can be asked from any machine that sees the folder. It
starts nothing and needs no Ray.

Example:
  dsgkd status runs/mlkd-20261121-142340
  dsgkd status s3://bucket/studies/first --watch 30
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated

import tyro
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text as RichText

from dsgkd.cli.flags import parse
from dsgkd.cli.paths import absolute
from dsgkd.configuration import Count, NonNegative, Positive, Text, config
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger, find_ledgers
from dsgkd.study.status.status import StudyStatus, TrialLine, read_status
from dsgkd.study.status.status_table import duration, hours, plain, table

SILENCE = 600.0
"""Seconds without news after which a running study is suspected to have been interrupted, unless
its epochs take long."""

Read = Callable[[], tuple[StudyStatus, datetime | None]]

STAGES = ("search", "confirm", "control", "test")
STATES = ("running", "complete", "pruned", "failed", "preempted")


@config
class Status:
    """What `dsgkd status` is asked."""

    study: Annotated[Text, tyro.conf.Positional]
    """A study's folder or URI, or its ledger's."""
    watch: Positive | None = None
    """Show it again and again, so many seconds apart, until Ctrl-C."""
    rows: Count | None = None
    """Trials shown at most; none: as many as fit, or 20 in a file."""
    price_per_gpu_hour: NonNegative | None = None
    """Also say what was paid."""


def run(arguments: list[str]) -> None:
    """Run `dsgkd status`."""
    flags = parse(Status, arguments, "dsgkd status", __doc__ or "")
    ledger = find_ledger(flags.study)

    def read() -> tuple[StudyStatus, datetime | None]:
        try:
            return read_status(ledger, flags.price_per_gpu_hour), ledger.changed_at()
        except OSError as error:
            what = f"cannot be read ({error.strerror or type(error).__name__})"
            raise InputError(flags.study, what, "look at the folder or the network") from error

    if flags.watch is None:
        _print(*read(), flags.rows)
        return
    try:
        _watch(read, flags.watch, flags.rows)
    except KeyboardInterrupt:
        print()


def find_ledger(study: str) -> Ledger:
    """Return the ledger in a study's folder, or the one that `study` itself is.

    Raises:
        InputError: there is none, or more than one.
    """
    found = find_ledgers(absolute(study))
    if len(found) > 1:
        raise InputError(study, f"{len(found)} studies stand here", "name the folder of one")
    return found[0]


def _print(status: StudyStatus, news: datetime | None, rows: int | None) -> None:
    if sys.stdout.isatty():
        Console().print(_all(status, news, rows, Console().height))
    else:
        print(plain(status.stage, 20 if rows is None else rows))
        print("\n".join(details(status, news)))


def _all(
    status: StudyStatus, news: datetime | None, rows: int | None, height: int
) -> RenderableType:
    """The table with what is said below it, together no higher than the terminal."""
    below = details(status, news)
    if rows is None:  # the heading, the names of columns, a free line, the prompt
        rows = max(height - len(below) - 8, 3)
    return Group(table(status.stage, rows), RichText(), *map(RichText, below))


def _watch(read: Read, pause: float, rows: int | None) -> None:
    status, news = read()
    live = Live(auto_refresh=False, vertical_overflow="crop") if sys.stdout.isatty() else None
    with live or nullcontext():
        while True:
            if live:
                live.update(_all(status, news, rows, live.console.height), refresh=True)
            else:
                _print(status, news, rows)
            time.sleep(pause)
            try:
                status, news = read()
            except InputError as error:  # a network that comes back, for instance
                print(f"{error}; trying again", file=sys.stderr)


def details(status: StudyStatus, news: datetime | None) -> list[str]:
    """Return what the table does not say: every stage by state with its cost, and how new it is."""
    lines = [*_counts(status.lines, status.stage.price_per_gpu_hour)]
    lines += [f"test split opened: {reading}" for reading in status.readings]
    lines += [f"failed: {text}" for text in _failures(status.lines)]
    if status.others:
        lines.append(f"({status.others} older studies in this ledger are not shown)")
    lines.append(_news(status, news, datetime.now(UTC)))
    return lines


def _counts(lines: Sequence[TrialLine], price: float) -> list[str]:
    groups: dict[tuple[str, str], list[TrialLine]] = defaultdict(list)
    for line in lines:
        groups[line.stage, line.state].append(line)
    if not groups:
        return ["no trial was started yet"]
    gpu, said = any(line.gpu_seconds for line in lines), []
    head = f"{'stage':<8}  {'state':<9}  {'attempts':>8}  {'worker hours':>12}"
    said.append(head + ("  GPU-hours" if gpu else "") + ("     price" if gpu and price else ""))
    for stage, state in sorted(groups, key=_order):
        group = groups[stage, state]
        worker = sum(line.worker_seconds for line in group)
        gpus = sum(line.gpu_seconds for line in group)
        text = f"{stage:<8}  {state:<9}  {len(group):>8}  {hours(worker):>12}"
        text += f"  {hours(gpus):>9}" if gpu else ""
        said.append(text + (f"  {gpus / 3600 * price:>8.2f}" if gpu and price else ""))
    return [*said, ""]


def _order(key: tuple[str, str]) -> tuple[int, ...]:
    orders = (STAGES, STATES)
    return tuple(o.index(name) if name in o else len(o) for o, name in zip(orders, key))


def _failures(lines: Sequence[TrialLine], most: int = 3) -> list[str]:
    reasons = Counter(line.reason for line in lines if line.state == "failed")
    return [f"{count} x {reason[:80]}" for reason, count in reasons.most_common(most)]


def _news(status: StudyStatus, news: datetime | None, now: datetime) -> str:
    if news is None:
        return "no news"
    silence = max((now - news).total_seconds(), 0.0)  # clocks of two machines may differ
    running = [line for line in status.lines if line.state == "running"]
    epochs = [line.seconds / line.epoch for line in status.lines if line.epoch > 0]
    if running and silence > max(SILENCE, 3 * max(epochs, default=0.0)):
        return f"no news for {duration(silence)}: interrupted? (then go on with --resume)"
    return f"last news {duration(silence)} ago"
