"""Teachers: whatever gives the states of the words of a batch.

The loop asks through one small protocol and does not know whether a model computes them on the spot
or they were stored before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from dsgkd.alignment.batch import Pair
from dsgkd.distillation.store.shard import DamagedShard
from dsgkd.distillation.store.states import States
from dsgkd.models.taps import TapRequest, WordStates, forward_with_taps


class Teacher(Protocol):
    """Anything that knows a domain's words."""

    def word_states(self, pair: Pair) -> WordStates:
        """Return the states of the words in the teacher's layers, without gradient."""
        ...


@dataclass(frozen=True)
class LiveTeacher:
    """A frozen encoder that reads every batch."""

    model: PreTrainedModel
    request: TapRequest
    autocast: bool = False
    """Compute in bf16; the states come out in float32 all the same."""

    @torch.no_grad()
    def word_states(self, pair: Pair) -> WordStates:
        """Run the encoder on the teacher's side of the batch."""
        side = pair.teacher
        if side is None:
            raise ValueError("the batch was collated without the teacher's tokens")
        with torch.autocast(side.input_ids.device.type, torch.bfloat16, enabled=self.autocast):
            return forward_with_taps(self.model, side, [(side.words, self.request)])[1][0]


@dataclass(frozen=True)
class StoredTeacher:
    """A frozen encoder's states, read from its store; the encoder need not be loaded."""

    states: States
    request: TapRequest
    repair: Callable[[], object]
    """Stores again what is missing; called when a file turns out to be damaged."""

    def word_states(self, pair: Pair) -> WordStates:
        """Look up the texts of the batch; a damaged shard is thrown away and computed anew.

        Raises:
            MissingStates: the batch has texts that were never stored.
        """
        try:
            return self.states.read(pair, self.request)
        except DamagedShard as damaged:
            self.states.storage.discard(damaged.path)
            self.states.reopen()
            self.repair()
            return self.states.read(pair, self.request)
