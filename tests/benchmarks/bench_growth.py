"""How the time and the memory of a step grow with words, lengths, batches and mapped layers.

How a study grows with trials and workers is measured by `bench_study`; its rows have the same
column `axis`, and `pictures` draws them in the same way.
"""

import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from harness import Row, Section, ratio
from workload import (
    MINI,
    Arm,
    Kind,
    Setting,
    apart,
    populate_store,
    step_seconds,
    synchronise,
)

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.training.config import RunConfig
from dsgkd.training.opening import where_to_run

KINDS: tuple[Kind, ...] = ("plain", "stored")
STEPS_FOR_MEMORY = 3
FORKED_WITH = ["torch", "dsgkd.training.loop", "transformers.models.bert.modeling_bert"]
"""Imported once by the server that each point is forked from."""


@dataclass(frozen=True)
class Point:
    """One setting on one axis."""

    axis: str
    value: int
    setting: Setting
    held: str
    """What does not vary on this axis."""

    def texts(self, rounds: int) -> EncodedTexts:
        """Return an epoch of so many rounds, at least a few batches: the same in every process."""
        return self.setting.texts(self.setting.batch * max(rounds, STEPS_FOR_MEMORY))


def run(quick: bool) -> Section:
    """Measure every point in processes of its own."""
    torch.set_num_threads(1)
    device, bf16 = where_to_run(RunConfig())
    rounds = 3 if quick else 9
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FORKED_WITH)
    before = apart(context, nothing)
    rows = []
    for point in points(device.type, bf16, quick):
        rows.append(measured(point, rounds, before, context))
    return Section("How the cost of a step grows", rows, _notes(rounds, device.type))


def points(device: str, bf16: bool, quick: bool) -> list[Point]:
    """Return the points of all axes; few of them when quick."""
    usual = Setting(MINI, 16, bf16, (20, 20), (80, 96), device=device)
    found = []
    for words in (0, 5, 10, 20, 40):
        setting = replace(usual, words=(words, words), lengths=(112, 128))
        found.append(Point("words a text", words, setting, "112-128 tokens, batch 16, 4 layers"))
    for length in (48, 96, 192, 384):
        setting = replace(usual, words=(10, 10), lengths=(length * 5 // 6, length))
        found.append(Point("length", length, setting, "10 words, batch 16, 4 layers"))
    for batch in (4, 8, 16, 32, 64):
        setting = replace(usual, batch=batch)
        found.append(Point("batch", batch, setting, "20 words, 80-96 tokens, 4 layers"))
    for layers in (1, 2, 3, 4):
        setting = replace(usual, mapping=f"last-{layers}")
        found.append(Point("layers mapped", layers, setting, "20 words, 80-96 tokens, batch 16"))
    if quick:
        wanted = {"words a text": (0, 20), "length": (48, 96), "batch": (4, 8)}
        wanted["layers mapped"] = (1, 4)
        found = [point for point in found if point.value in wanted[point.axis]]
    return found


def measured(point: Point, rounds: int, before: float, context: BaseContext) -> Row:
    """Measure one point: the time of both arms together, the memory of each alone."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        # Texts without words find nothing in a store, but it has to be one that holds something.
        stored = point if point.value or point.axis != "words a text" else _with_a_word(point)
        populate_store(stored.setting, stored.texts(rounds), store)
        seconds = apart(context, partial(timed, point, rounds, store))
        peaks = {
            kind: apart(context, partial(peak, point, rounds, store, kind)) - before
            for kind in KINDS
        }
    row: Row = {"axis": point.axis, "value": point.value}
    row |= {f"{kind} ms": statistics.median(seconds[kind]) * 1e3 for kind in KINDS}
    row["stored / plain"] = ratio(seconds["stored"], seconds["plain"])
    row |= {f"{kind} MB": peaks[kind] / 1e6 for kind in KINDS}
    return row | {"precision": point.setting.precision, "held": point.held}


def _with_a_word(point: Point) -> Point:
    return replace(point, setting=replace(point.setting, words=(1, 1)))


def nothing() -> float:
    """Return the memory of a process that has imported all and trained nothing."""
    return _peak("cpu") if not torch.cuda.is_available() else 0.0


def timed(point: Point, rounds: int, store: Path) -> dict[Kind, list[float]]:
    """Time the steps of both arms."""
    torch.set_num_threads(1)
    texts = point.texts(rounds)
    arms = {kind: Arm(point.setting, kind, texts, store) for kind in KINDS}
    for arm in arms.values():
        arm.warm_up()
    return step_seconds(arms, rounds)


def peak(point: Point, rounds: int, store: Path, kind: Kind) -> float:
    """Return the most memory that an arm had, in bytes, after some steps."""
    torch.set_num_threads(1)
    arm = Arm(point.setting, kind, point.texts(rounds), store)
    step_seconds({kind: arm}, STEPS_FOR_MEMORY)
    synchronise(point.setting.device)
    return _peak(point.setting.device)


def _peak(device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


def _notes(rounds: int, device: str) -> list[str]:
    kind = (
        "the most that PyTorch had allocated on the GPU"
        if device == "cuda"
        else "the most resident memory of a process that trains this alone, less that of one that "
        "has only imported the library"
    )
    return [
        "BERT mini (4 x 256), student and teacher; stored: word states and word attention, "
        "read from a store on disk",
        f"ms: median of {rounds} steps, both arms in turns on the same batches; one thread",
        f"MB: {kind}: weights, gradients, optimizer, activations, and of the store what was read",
        f"each point in processes of its own; {os.cpu_count()} cores",
        "axes trials and workers: see the section on studies",
    ]
