"""Batches on their way to the device, so that it does not wait for them.

On a GPU, a thread assembles the next batches, looks up the stored teachers' states and puts them
into page-locked memory, from which they are copied while the GPU computes. On a CPU a thread
would only take time from the computation, so batches are assembled in turn.
"""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import torch

from dsgkd.alignment.batch import Batch
from dsgkd.distillation.teachers.source import RunTeacher
from dsgkd.models.taps import WordStates

T = TypeVar("T")

AHEAD = 3
"""Batches that wait ready."""


def prefetch(
    batches: Iterable[Batch], teachers: Sequence[RunTeacher], device: torch.device
) -> Iterator[tuple[Batch, list[WordStates]]]:
    """Yield batches and each teacher's states of their words, all on the device."""
    on_gpu = device.type == "cuda"

    def assembled() -> Iterator[tuple[Batch, list[WordStates | None]]]:
        for batch in batches:
            stored = [
                teacher.provider.word_states(pair) if teacher.is_stored else None
                for teacher, pair in zip(teachers, batch.pairs)
            ]
            if on_gpu:
                batch = batch.pin_memory()
                stored = [states and states.pin_memory() for states in stored]
            yield batch, stored

    for batch, stored in ahead(assembled(), AHEAD) if on_gpu else assembled():
        batch = batch.to(device)
        yield (
            batch,
            [
                states.to(device) if states else teacher.provider.word_states(pair)
                for states, teacher, pair in zip(stored, teachers, batch.pairs)
            ],
        )


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield items that a thread takes from their source before they are asked for.

    An error in the source is raised here, in its turn; the thread ends when nobody asks any more.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                offer(item, None)
                if stopped.is_set():
                    return
            offer(None, StopIteration())
        except BaseException as error:  # whatever it is, the consumer must not wait for ever
            offer(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
