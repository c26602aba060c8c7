"""The probabilities that a trained student gives to raw texts."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment.batches import evaluation_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.models.student import probabilities


def class_probabilities(
    student: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Return class probabilities of texts, [texts, classes], in their order."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student.to(device)
    notes = EncodedNotes.unlabelled(texts, tokenizer, max_length)
    rows, shares = [], []
    for batch in evaluation_batches(notes, batch_size):
        side = batch.to(device).student
        shares.append(probabilities(student, side.input_ids, side.attention_mask).cpu())
        rows.append(batch.rows)
    result = torch.cat(shares)
    return result[torch.cat(rows).argsort()].numpy()
