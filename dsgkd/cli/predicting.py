"""The probabilities that a trained student gives to raw texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dsgkd.alignment.batch import Collator, evaluation_batches
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.models.attention import attention_for
from dsgkd.models.export import StudentCard, load_student
from dsgkd.models.taps import run_model


class Classifier:
    """A trained student, read from its folder.

    Raises:
        InputError: the folder holds no student, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        student, self._tokenizer, card = load_student(folder, attention_for(self._device))
        self._student, self.card = student.to(self._device), card

    card: StudentCard
    """What it knows besides the weights."""

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Return class probabilities of texts, [texts, classes], in their order."""
        card = self.card
        view = View.once(texts, self._tokenizer, card.max_length, card.words)
        encoded = EncodedTexts.of_view(view)
        needs_words = getattr(self._student, "needs_words", False)
        collate = Collator(card.max_transfer_words, own_words=needs_words)
        result = np.zeros((len(texts), len(card.label_names)), np.float32)
        with torch.inference_mode():
            for batch in evaluation_batches(encoded, batch_size, collate):
                logits = run_model(self._student, batch.to(self._device).student).logits
                result[batch.rows.numpy()] = logits[: len(batch)].float().softmax(-1).cpu().numpy()
        return result
