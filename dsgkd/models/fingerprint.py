"""Names of weights that change when any weight does."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from huggingface_hub import try_to_load_from_cache

from dsgkd.errors import InputError
from dsgkd.models.hub import load_config, load_model

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@lru_cache
def fingerprint(reference: str, random_weights_seed: int | None = None) -> str:
    """Return 32 hexadecimal digits that name the weights of a model.

    Weights are named by the content of their files, random ones by what they are drawn from.

    Args:
        reference: local folder or hub id.
        random_weights_seed: as in `load_model`.

    Raises:
        InputError: there is no such model, or no weights in it.
    """
    config = load_config(reference).to_dict()
    # Where a model lies does not change what it says.
    config.pop("_name_or_path", None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    if random_weights_seed is not None:
        drawn = (random_weights_seed, torch.__version__, transformers.__version__)
        digest.update(json.dumps(drawn).encode())
    else:
        files = _weight_files(reference)
        if not files:
            raise InputError(reference, "no file of weights is in it", "save it as safetensors")
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _weight_files(reference: str) -> list[Path]:
    """Return the files of the weights, downloading a hub model that is not in the cache."""
    folder = Path(reference)
    if not folder.is_dir():
        files = _cached(reference)
        if not files:
            load_model(reference, "eager")
            files = _cached(reference)
        return files
    return _in(folder)


def _cached(hub_id: str) -> list[Path]:
    config = try_to_load_from_cache(hub_id, "config.json")
    return _in(Path(config).parent) if isinstance(config, str) else []


def _in(folder: Path) -> list[Path]:
    found = (sorted(folder.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])
