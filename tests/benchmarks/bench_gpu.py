"""What a step of distillation costs on a GPU, how well the GPU is used, and by how many."""

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing.managers import SyncManager
from pathlib import Path
from threading import Barrier

import torch
from harness import Row, Section, Spread
from workload import (
    BASE,
    LARGE,
    MINI,
    Arm,
    Kind,
    Setting,
    Shape,
    close,
    parameter_count,
    populate_store,
    synchronise,
)

from dsgkd.models.student import encoder_of

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L4": 121.0}
"""Dense bf16 peak of the whole device, from the vendor's data sheets (SXM forms)."""
KINDS: tuple[Kind, ...] = ("plain", "stored", "live")
SHARED = (1, 2, 4)
"""How many processes share the GPU."""
TOGETHER = 600.0
"""Seconds after which a process no longer waits for the others."""


@dataclass(frozen=True)
class Plan:
    """One size of student, and how much of it is timed."""

    shape: Shape
    batch: int
    steps: int
    """Steps of each arm in a round, between two waits for the GPU."""
    rounds: int
    shared_steps: int
    """Steps of each of the processes that share the GPU."""

    @property
    def setting(self) -> Setting:
        """Return what the arms have in common."""
        return Setting(self.shape, self.batch, True, device="cuda")

    @property
    def texts(self) -> int:
        """How many texts an epoch has; it is read over and over, and its store grows with it."""
        return self.batch * 16


FULL = [Plan(BASE, 32, 30, 7, 150), Plan(LARGE, 32, 20, 7, 80)]
QUICK = [Plan(MINI, 32, 10, 3, 30), Plan(BASE, 32, 10, 3, 30)]


def run(quick: bool) -> Section:
    """Measure what there is to measure on the first GPU."""
    title = "Steps on a GPU"
    if not torch.cuda.is_available():
        return Section(title, [{"state": "not measured: no GPU here"}])
    torch.set_num_threads(1)
    rows = []
    for plan in QUICK if quick else FULL:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder)
            populate_store(plan.setting, plan.setting.texts(plan.texts), store)
            rows += alone(plan, store)
            release()
            for kind in ("plain", "stored"):
                rows += together(plan, kind, store)
    peak = peak_tflops(torch.cuda.get_device_name())
    return Section(title, rows, _notes(peak))


def alone(plan: Plan, store: Path) -> list[Row]:
    """Time all arms in this process, in turns; find the peak memory of each by itself."""
    memory = {kind: peak_memory(plan, kind, store) for kind in KINDS}
    arms = {kind: new_arm(plan, kind, store) for kind in KINDS}
    fed = {kind: arm.endless() for kind, arm in arms.items()}
    seconds: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    flops: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    # Both follow the same batches, so their operations are counted once, ahead of the clock.
    counted = endless_flops(arms["plain"])
    try:
        for _ in range(plan.rounds):
            done = sum(islice(counted, plan.steps))
            for kind, arm in arms.items():
                seconds[kind].append(spent(arm, fed[kind], plan.steps))
                flops[kind].append(done)
    finally:
        close(fed.values())
    peak = peak_tflops(torch.cuda.get_device_name())
    examples = plan.batch * plan.steps
    rows = []
    for kind in KINDS:
        rates = [f / s for f, s in zip(flops[kind], seconds[kind], strict=True)]
        rows.append(
            {
                "student": str(plan.shape),
                "batch": plan.batch,
                "arm": kind,
                "processes": 1,
                "step ms": Spread.of([s / plan.steps * 1e3 for s in seconds[kind]]),
                "over plain": None
                if kind == "plain"
                else Spread.of([a / b for a, b in zip(seconds[kind], seconds["plain"])]),
                "examples/s": Spread.of([examples / s for s in seconds[kind]]),
                "peak MB": memory[kind] / 1e6,
                "MFU %": None
                if peak is None
                else Spread.of([rate / (peak * 1e12) * 100 for rate in rates]),
            }
        )
    return rows


def new_arm(plan: Plan, kind: Kind, store: Path) -> Arm:
    """Make one arm on the GPU, warmed up."""
    arm = Arm(plan.setting, kind, plan.setting.texts(plan.texts), store)
    arm.warm_up()
    return arm


def peak_memory(plan: Plan, kind: Kind, store: Path) -> float:
    """Return the most bytes that PyTorch allocates while an arm has the GPU to itself."""
    release()
    before = torch.cuda.memory_allocated()
    arm = new_arm(plan, kind, store)
    torch.cuda.reset_peak_memory_stats()
    batches = arm.endless()
    spent(arm, batches, 5)
    close([batches])
    return torch.cuda.max_memory_allocated() - before


def release() -> None:
    """Give back the memory of arms that are no longer in use; schedules refer to themselves."""
    gc.collect()
    torch.cuda.empty_cache()


def spent(arm: Arm, batches: Iterator, steps: int) -> float:
    """Time some steps, without a wait between them, as the loop takes them."""
    started = time.perf_counter()
    for batch, states in islice(batches, steps):
        arm.step(batch, states)
    synchronise(arm.setting.device)
    return time.perf_counter() - started


def endless_flops(arm: Arm) -> Iterator[float]:
    """Yield the model FLOPs of every step's batch, over and over."""
    epoch = [
        model_flops(arm, batch.student.attention_mask.sum(1).tolist()) for batch in arm.batches()
    ]
    while True:
        yield from epoch


def model_flops(arm: Arm, lengths: list[int]) -> float:
    """Count the floating-point operations that training the student on some texts needs.

    Six for each weight and token (two forward, four backward), where embeddings, which are looked
    up, do not count; and in every layer two products of [length, width] and [width, length].
    Padding, the teacher and the losses are no useful work.
    """
    encoder = encoder_of(arm.run.student)
    weights = parameter_count(encoder) - parameter_count(encoder.embeddings)
    shape = arm.setting.shape
    attention = 12 * shape.layers * shape.width  # times length, for each token
    return sum(6.0 * weights * n + attention * n * n for n in lengths)


def peak_tflops(name: str) -> float | None:
    """Return the bf16 peak of a device, None where it is not known."""
    words = name.replace("-", " ").split()
    if "H100" in words and {"PCIe", "NVL"} & set(words):
        return None  # clocked lower than the form in the table
    return next((peak for model, peak in PEAK_TFLOPS.items() if model in words), None)


def together(plan: Plan, kind: Kind, store: Path) -> list[Row]:
    """Let 1, 2 and 4 processes train at once, each a student of its own."""
    rows, one = [], None
    context = multiprocessing.get_context("spawn")
    for count in SHARED:
        row: Row = {
            "student": str(plan.shape),
            "batch": plan.batch,
            "arm": kind,
            "processes": count,
        }
        with context.Manager() as manager, ProcessPoolExecutor(count, context) as processes:
            assert isinstance(manager, SyncManager)
            barrier = manager.Barrier(count)
            futures = [processes.submit(share, plan, kind, store, barrier) for _ in range(count)]
            try:
                ran = [future.result(timeout=TOGETHER) for future in futures]
            except Exception as error:  # out of memory, in whichever process: the others must end
                barrier.abort()
                rows.append(row | {"state": f"failed: {type(error).__name__}"})
                continue
        # From the common start to the end of the last, so idle ends count against sharing.
        wall = max(end for _, end in ran) - min(start for start, _ in ran)
        rate = count * plan.shared_steps * plan.batch / wall
        one = one or rate
        rows.append(row | {"all examples/s": rate, "over one": rate / one})
    return rows


def share(plan: Plan, kind: Kind, store: Path, barrier: Barrier) -> tuple[float, float]:
    """Train in one of the processes; return when it started and ended, on the machine's clock."""
    torch.set_num_threads(1)
    try:
        arm = new_arm(plan, kind, store)
        batches = arm.endless()
        spent(arm, batches, 3)
        barrier.wait(TOGETHER)
    except BaseException:
        barrier.abort()  # nobody waits for a process that will not come
        raise
    started = time.monotonic()
    spent(arm, batches, plan.shared_steps)
    ended = time.monotonic()
    close([batches])
    return started, ended


def _notes(peak: float | None) -> list[str]:
    of = "unknown for this device" if peak is None else f"{peak:g} TFLOP/s, dense bf16"
    return [
        "BERT, random weights, bf16 autocast, student and teacher of one size; 20-30 words and "
        "80-96 tokens a text; mapping uniform, alpha 1, beta 1",
        "batches come as in the loop: a thread assembles them, looks up the store and pins them",
        "step ms: some tens of steps between two waits for the GPU, over their number",
        "MFU: 6 x weights without embeddings x tokens + 12 x layers x width x length^2 a text, "
        f"padding and teacher not counted, over the peak ({of})",
        "peak MB: what PyTorch allocated at most, one arm alone",
        "processes: each trains a student of its own from the same store; examples/s of all, from "
        f"the common start to the end of the last; {os.cpu_count()} CPU cores",
    ]
