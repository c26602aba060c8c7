"""What does the teacher say about the words of a batch?

The loop asks through one small protocol and does not know whether a model answers on the spot.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps
from dsgkd.text.batches import Batch


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
