"""Checkpoints: all that a run needs to go on, written whole and read back to the bit.

A checkpoint is one safetensors file. Tensors are stored as tensors; everything else of the nested
state (optimizer hyperparameters, schedule, random number generators, counters) travels as JSON in
the file's header, with a placeholder where a tensor stood. One file means one atomic rename: a
checkpoint is there or it is not. Nothing is ever unpickled.
"""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dsgkd.errors import InputError, StorageError
from dsgkd.storage.atomic import atomic_write
from dsgkd.storage.location import Location

State = dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, in a local folder or in object storage.

    Args:
        folder: a path, or a URI; then a file passes through the local disk for temporary files.
    """

    def __init__(self, folder: Path | str) -> None:
        self._location = Location(folder)

    def __str__(self) -> str:
        return self._location.path()

    def save(self, name: str, state: State) -> None:
        """Write a state, or replace it.

        Raises:
            StorageError: the disk is full, or the folder cannot be written; what was there stays.
        """
        if not self._location.is_remote:
            save_state(self._location.folder / name, state)
            return
        with tempfile.TemporaryDirectory(prefix="dsgkd-") as scratch:
            save_state(Path(scratch) / name, state)
            self._location.upload(name, Path(scratch) / name)

    def load(self, name: str) -> State:
        """Read a state, on the CPU.

        Raises:
            InputError: there is none, or it is damaged.
        """
        if not self._location.is_remote:
            return load_state(self._location.folder / name)
        with tempfile.TemporaryDirectory(prefix="dsgkd-") as scratch:
            local = Path(scratch) / name
            with suppress(FileNotFoundError):  # `load_state` says so
                self._location.download(name, local)
            try:
                return load_state(local)
            except InputError as error:
                where = self._location.path(name)
                raise InputError(where, error.what, error.remedy) from None

    def exists(self, name: str) -> bool:
        """Whether there is such a state."""
        return self._location.exists(name)

    def delete(self, *names: str) -> None:
        """Delete states, as far as they are there."""
        self._location.delete(*names)


def save_state(path: Path, state: State) -> None:
    """Write a nested state of dicts, lists, tuples, scalars and tensors to `path` atomically.

    Raises:
        StorageError: the disk is full or the folder cannot be written; no partial file is left.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_pack(state, tensors))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata={"state": skeleton})
    except (OSError, SafetensorError) as error:
        raise StorageError.of(path, error) from error


def load_state(path: Path) -> State:
    """Read back what `save_state` wrote, on the CPU.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise InputError(str(path), "no such checkpoint", "check the path")
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            skeleton = json.loads(stored.metadata()["state"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            return _unpack(skeleton, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            str(path), "not a whole checkpoint", "delete it and start again"
        ) from error


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        # A clone, because safetensors refuses tensors that share storage (tied weights).
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    return tuple(_unpack(item, tensors) for item in content)
