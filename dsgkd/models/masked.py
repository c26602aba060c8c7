"""A masked language model whose head reads the positions to predict, and no others."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from dsgkd.models.hub import load_model


class MaskedStudent(nn.Module):
    """A masked language model that predicts at chosen positions only.

    The logits of the whole vocabulary at all positions would be most of the work, so a hook takes
    the other positions away between encoder and head, whatever the architecture calls its head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._predicted: Tensor | None = None
        model.base_model.register_forward_hook(self._keep_predicted)

    @property
    def base_model(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.model.base_model
        return encoder

    def _keep_predicted(self, module: nn.Module, inputs: object, output: Any) -> None:
        if self._predicted is not None:
            output.last_hidden_state = output.last_hidden_state[self._predicted][None]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        output_hidden_states: bool = False,
        predicted: Tensor | None = None,
    ) -> Any:
        """Return logits [1, predicted, vocabulary], or of all positions, and hidden states."""
        self._predicted = predicted
        try:
            return self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                output_hidden_states=output_hidden_states,
            )
        finally:
            self._predicted = None


def load_masked(reference: str, attention: str) -> MaskedStudent:
    """Load a masked language model; a head that the weights lack is drawn at random.

    Raises:
        InputError: it cannot be loaded.
    """
    return MaskedStudent(load_model(reference, attention, AutoModelForMaskedLM))
