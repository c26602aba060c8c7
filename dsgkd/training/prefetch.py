"""How do batches reach the device without the device waiting for them?

On a GPU, a thread assembles the next batches, looks up the stored teacher's states and puts them
into page-locked memory, from which they are copied while the GPU computes. On a CPU a thread
would only take time from the computation, so batches are assembled in turn.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from dsgkd.alignment.batches import Batch
from dsgkd.models.taps import WordStates
from dsgkd.training.run import OpenRun

T = TypeVar("T")

AHEAD = 3
"""Batches that wait ready."""


def feed(run: OpenRun, batches: Iterable[Batch]) -> Iterator[tuple[Batch, WordStates | None]]:
    """Yield batches and what the teacher says of their words, both on the run's device."""
    teacher, on_gpu = run.teacher, run.device.type == "cuda"

    def assembled() -> Iterator[tuple[Batch, WordStates | None]]:
        for batch in batches:
            stored = teacher is not None and teacher.is_stored
            taught = teacher.answers.word_states(batch) if teacher and stored else None
            if on_gpu:
                batch, taught = batch.pin_memory(), taught and taught.pin_memory()
            yield batch, taught

    for batch, taught in ahead(assembled(), AHEAD) if on_gpu else assembled():
        batch, taught = batch.to(run.device), taught and taught.to(run.device)
        if teacher is not None and not teacher.is_stored:
            taught = teacher.answers.word_states(batch)
        yield batch, taught


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
