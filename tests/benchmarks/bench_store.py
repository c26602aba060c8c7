"""What does a stored teacher cost: to populate, to keep, to open, to share?

Filling is one pass of the teacher over the texts, compared with one epoch of plain fine-tuning of
a student of the same size on the same texts, step by step interleaved with it. Sharing is read
from /proc: of what several processes map of the store, how much main memory is there in all?
"""

import multiprocessing
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, Section, Spread
from workload import (
    KEY,
    MINI,
    SEED,
    Arm,
    Setting,
    fill_store,
    new_distiller,
    new_teacher,
    synthetic_notes,
)

from dsgkd.alignment.batches import steps_per_epoch, training_batches
from dsgkd.distillation.store.populate import populate_chunk, words_needed
from dsgkd.distillation.store.shard_storage import ShardStorage
from dsgkd.distillation.store.state_kinds import kinds_of
from dsgkd.distillation.store.states import States

BATCH = 32


def run(quick: bool) -> Section:
    """Fill, open and share stores of mini teachers."""
    torch.set_num_threads(1)
    texts, rounds = (256, 2) if quick else (1024, 5)
    rows = [filling(bf16, texts, rounds) for bf16 in (False, True)]
    rows += [opening(count) for count in ((1000,) if quick else (1000, 10_000, 100_000))]
    rows += sharing(512 if quick else 8192)
    notes = [
        f"filling: {texts} texts of 80-96 tokens and 20-30 words; mini teacher and student (4 x "
        "256), all of uniform's layers, hidden states and word-by-word attention; one thread",
        "opening: a process finds the shards, maps them and indexes the texts; files of the page "
        "cache; 16 words a text, width 64",
        "sharing: Pss (/proc/PID/smaps) of the shards' mappings, summed over the processes, "
        "after each read every text; `own` is the private memory of one process",
    ]
    return Section("Stored teacher", rows, notes)


def filling(bf16: bool, texts: int, rounds: int) -> Row:
    """Time a pass of the teacher in parts, and steps of plain fine-tuning in between."""
    setting = Setting(MINI, BATCH, bf16)
    notes = synthetic_notes(texts, setting.words, setting.lengths)
    parts = kinds_of(new_distiller(setting, "stored").teacher_request)
    words, model = words_needed(notes, 32), new_teacher(setting)
    plain = Arm(setting, "plain", notes)
    plain.warm_up()
    batches, steps = plain.endless(), steps_per_epoch(texts, BATCH)
    share = 4  # of the steps of an epoch, in each round
    ratios, fill_seconds = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            states = States(ShardStorage(Path(folder)), KEY)
            started = time.perf_counter()
            populate_chunk(states, notes, np.arange(texts), words, parts, model, bf16)
            fill_seconds.append(time.perf_counter() - started)
            size = sum(path.stat().st_size for path in Path(folder).iterdir())
        started = time.perf_counter()
        for _ in range(-(-steps // share)):
            plain.step(*next(batches))
        epoch = (time.perf_counter() - started) / -(-steps // share) * steps
        ratios.append(fill_seconds[-1] / epoch)
    return {
        "what": f"fill / plain epoch, {setting.precision}",
        "value": Spread.of(ratios),
        "aim": "<= 0.5",
        "more": f"{size / texts:,.0f} bytes a text, {texts / min(fill_seconds):,.0f} texts/s",
    }


def opening(texts: int) -> Row:
    """Time the opening of a store, again and again, in one process."""
    setting = Setting(replace(MINI, layers=1, width=64, heads=1), BATCH, False, words=(16, 16))
    with tempfile.TemporaryDirectory() as folder:
        notes = _stored_cheaply(setting, texts, Path(folder))
        words, parts = words_needed(notes, 32), kinds_of(_request(setting))
        seconds = []
        for _ in range(9):
            started = time.perf_counter()
            states = States(ShardStorage(Path(folder)), KEY)
            missing = states.missing(notes.keys, words, parts)
            seconds.append(time.perf_counter() - started)
            assert not len(missing)
        shards = len(states.shards)
    return {
        "what": f"open, {texts:,} texts",
        "value": Spread.of([1000 * value for value in seconds]),
        "aim": "< 50 ms",
        "more": f"milliseconds; {shards} shards",
    }


def sharing(texts: int) -> list[Row]:
    """Let 1, 2 and 4 processes read all of one store, and look at their memory."""
    setting = Setting(MINI, BATCH, False)
    rows: list[Row] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        notes = _stored_cheaply(setting, texts, Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        for count in (1, 2, 4):
            with context.Pool(count) as pool:
                arrived = context.Manager().Barrier(count)
                jobs = [(setting, texts, folder, arrived)] * count
                memory = pool.starmap(_read_all, jobs, chunksize=1)
            rows.append(
                {
                    "what": f"memory, {count} processes",
                    "value": sum(shared for shared, _ in memory) / 1e6,
                    "aim": "flat",
                    "more": f"MB of a store of {size / 1e6:,.0f} MB; own memory "
                    f"{np.median([own for _, own in memory]) / 1e6:,.0f} MB each",
                }
            )
    del notes
    return rows


def _request(setting: Setting) -> Any:
    return new_distiller(setting, "stored").teacher_request


def _stored_cheaply(setting: Setting, texts: int, folder: Path) -> Any:
    """Fill a store in shards of at most 8,192 texts; what the states are does not matter here."""
    notes = synthetic_notes(texts, setting.words, setting.lengths)
    words, parts = words_needed(notes, 32), kinds_of(_request(setting))
    model = new_teacher(replace(setting, shape=replace(setting.shape, layers=1)))
    if setting.shape.layers > 1:
        fill_store(setting, notes, folder)
        return notes
    states = States(ShardStorage(folder), KEY)
    for first in range(0, texts, 8192):
        rows = np.arange(first, min(first + 8192, texts))
        populate_chunk(states, notes, rows, words, parts, model, True)
    return notes


def _read_all(setting: Setting, texts: int, folder: str, arrived: Any) -> tuple[float, float]:
    """Read every text as an epoch does; return the bytes shared and the bytes of one's own."""
    torch.set_num_threads(1)
    notes = replace(synthetic_notes(texts, setting.words, setting.lengths), teacher=None)
    states, request = States(ShardStorage(Path(folder)), KEY), _request(setting)
    for batch in training_batches(notes, BATCH, 32, SEED, 0):
        states.read(batch, request)
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
