"""Models as folders that transformers loads: weights, configuration and tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dsgkd.errors import StorageError
from dsgkd.storage.atomic import atomic_folder


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model and its tokenizer, whole or not at all; what was there before is replaced.

    Args:
        folder: where to.
        model: the model.
        tokenizer: its tokenizer.
        facts: file name -> what is written there as JSON.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        with atomic_folder(folder) as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
            for name, content in (facts or {}).items():
                (draft / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StorageError.of(folder, error) from error
