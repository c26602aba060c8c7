"""What does the teacher say about the words of a batch?

The loop asks through one small protocol and does not know whether a model answers on the spot or
a store in which the same model's answers were kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from dsgkd.alignment.batches import Batch
from dsgkd.distillation.store.shard import DamagedShard
from dsgkd.distillation.store.states import States
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps


class Teacher(Protocol):
    """Anything that knows a domain's words."""

    def word_states(self, batch: Batch) -> WordStates:
        """Return the states of the batch's words in the teacher's layers, without gradient."""
        ...


@dataclass(frozen=True)
class LiveTeacher:
    """A frozen encoder that reads every batch."""

    model: PreTrainedModel
    request: TapRequest
    autocast: bool = False
    """Compute in bf16; the states come out in float32 all the same."""

    @torch.no_grad()
    def word_states(self, batch: Batch) -> WordStates:
        """Run the encoder on the teacher's side of the batch."""
        if batch.teacher is None:
            raise InputError("teacher", "the notes were prepared without one", "prepare them anew")
        device = batch.teacher.input_ids.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            return forward_with_taps(self.model, batch.teacher, self.request)[1]


@dataclass(frozen=True)
class StoredTeacher:
    """A frozen encoder's answers, read from its store; the encoder need not be loaded."""

    states: States
    request: TapRequest
    repair: Callable[[], object]
    """Stores again what is missing; called when a file turns out to be damaged."""

    def word_states(self, batch: Batch) -> WordStates:
        """Look up the texts of the batch; a damaged shard is thrown away and computed anew.

        Raises:
            MissingStates: the batch has texts that were never stored.
        """
        try:
            return self.states.read(batch, self.request)
        except DamagedShard as damaged:
            self.states.storage.discard(damaged.path)
            self.states.reopen()
            self.repair()
            return self.states.read(batch, self.request)
