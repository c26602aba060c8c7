"""What a stored teacher costs: to populate, to keep, to open, to share.

Populating is one pass of the teacher over the texts, compared with one epoch of plain fine-tuning
of a student of the same size on the same texts, step by step interleaved with it. Sharing is read
from /proc: of what several processes map of the store, how much main memory there is in all.
"""

import multiprocessing
import re
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, Section, Spread
from workload import (
    KEY,
    MINI,
    Arm,
    Setting,
    new_teacher,
    populate_store,
    request,
    spent,
)

from dsgkd.distillation.store.populate import populate_chunk, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import States

BATCH = 32


def run(quick: bool) -> Section:
    """Populate, open and share stores of mini teachers."""
    torch.set_num_threads(1)
    texts, rounds = (256, 2) if quick else (1024, 5)
    rows = [populating(bf16, texts, rounds) for bf16 in (False, True)]
    rows += [opening(count) for count in ((1000,) if quick else (1000, 10_000, 100_000))]
    rows += sharing(512 if quick else 8192)
    notes = [
        f"populate: {texts} texts of 80-96 tokens and 20-30 words; mini teacher and student (4 x "
        "256), all of uniform's layers, hidden states and word-by-word attention; one thread",
        "opening: a process finds the shards, maps them and indexes the texts; files of the page "
        "cache; 16 words a text, width 64",
        "sharing: Pss (/proc/PID/smaps) of the shards' mappings, summed over the processes, "
        "after each read every text; `own` is the private memory of one process",
    ]
    return Section("Stored teacher", rows, notes)


def populating(bf16: bool, count: int, rounds: int) -> Row:
    """Time a pass of the teacher in parts, and steps of plain fine-tuning in between."""
    setting = Setting(MINI, BATCH, bf16)
    texts, kinds, model = setting.texts(count), kinds_of(request(setting)), new_teacher(setting)
    view, words = texts.teachers[0], words_needed(texts.alignments[0], 32)
    _ = view.keys  # a run computes them whether it stores anything or not
    plain = Arm(setting, "plain", texts)
    plain.warm_up()
    batches, steps = plain.endless(), -(-count // BATCH)
    some = -(-steps // 4)  # of the steps of an epoch, in each round

    def train() -> None:
        for batch, states in islice(batches, some):
            plain.step(batch, states)

    ratios, seconds = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            states = States(ShardStorage(Path(folder)), KEY)
            rows = np.arange(count)
            seconds.append(
                spent(partial(populate_chunk, states, view, rows, words, kinds, model, bf16))
            )
            size = sum(path.stat().st_size for path in Path(folder).iterdir())
        ratios.append(seconds[-1] / (spent(train) / some * steps))
    return {
        "what": f"populate / plain epoch, {setting.precision}",
        "value": Spread.of(ratios),
        "aim": "<= 0.5",
        "more": f"{size / count:,.0f} bytes a text, {count / min(seconds):,.0f} texts/s",
    }


def opening(count: int) -> Row:
    """Time the opening of a store, again and again, in one process."""
    setting = Setting(replace(MINI, layers=1, width=64, heads=1), BATCH, False, words=(16, 16))
    kinds = kinds_of(request(setting))
    with tempfile.TemporaryDirectory() as folder:
        texts = setting.texts(count)
        view, words = texts.teachers[0], words_needed(texts.alignments[0], 32)
        states, model = States(ShardStorage(Path(folder)), KEY), new_teacher(setting)
        for first in range(0, count, 8192):  # as many shards as larger states would have
            rows = np.arange(first, min(first + 8192, count))
            populate_chunk(states, view, rows, words, kinds, model, True)
        milliseconds = []
        for _ in range(9):
            started = time.perf_counter()
            states = States(ShardStorage(Path(folder)), KEY)
            missing = states.missing(view.keys, words, kinds)
            milliseconds.append(1000 * (time.perf_counter() - started))
            assert not len(missing)
    return {
        "what": f"open, {count:,} texts",
        "value": Spread.of(milliseconds),
        "aim": "< 50 ms",
        "more": f"milliseconds; {len(states.shards)} shards",
    }


def sharing(count: int) -> list[Row]:
    """Let 1, 2 and 4 processes read all of one store, and look at their memory."""
    setting = Setting(MINI, BATCH, False)
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        populate_store(setting, setting.texts(count), Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        for processes in (1, 2, 4):
            with context.Manager() as manager, context.Pool(processes) as pool:
                arrived = manager.Barrier(processes)
                jobs = [(setting, count, folder, arrived)] * processes
                memory = pool.starmap(_read_all, jobs, chunksize=1)
            rows.append(
                {
                    "what": f"memory, {processes} processes",
                    "value": sum(shared for shared, _ in memory) / 1e6,
                    "aim": "flat",
                    "more": f"MB of a store of {size / 1e6:,.0f} MB; own memory "
                    f"{np.median([own for _, own in memory]) / 1e6:,.0f} MB each",
                }
            )
    return rows


def _read_all(setting: Setting, count: int, folder: str, arrived: Any) -> tuple[float, float]:
    """Read every text as an epoch does; return the bytes shared and the bytes of one's own."""
    torch.set_num_threads(1)
    arm = Arm(setting, "stored", setting.texts(count), Path(folder))
    for _ in arm.fed(arm.batches()):
        pass
    arrived.wait()  # every process has mapped all of it
    found = _mappings(folder)
    arrived.wait()
    return found


def _mappings(folder: str) -> tuple[float, float]:
    """Return the Pss of the mappings of files in a folder, and the private memory of all else."""
    shared = own = 0.0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = folder in line
        elif inside and line.startswith("Pss:"):
            shared += 1024 * int(line.split()[1])
        elif not inside and line.startswith(("Private_Clean:", "Private_Dirty:")):
            own += 1024 * int(line.split()[1])
    return shared, own
