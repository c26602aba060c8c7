"""The processes that train one model together: one, or several that share every batch.

The loop knows no more of them than this, so not whether Ray Train started them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dsgkd.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """The processes that train one model together; one of them is this one."""

    rank: int = 0
    """This process, counted from 0."""
    size: int = 1
    """Number of processes."""

    @classmethod
    def current(cls) -> "Workers":
        """Return the workers of the initialised process group, or the single process."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the workers."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Return every worker's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wrap_ddp(
        self, module: nn.Module, device: torch.device, uses_all_parameters: bool = True
    ) -> nn.Module:
        """Return the module with its gradients averaged over the workers."""
        if self.size == 1:
            return module
        return DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=not uses_all_parameters,
        )

    def on_rank_zero(self, action: Callable[[], None]) -> None:
        """Let the first worker do something, and return on every worker when it is done.

        Raises:
            InputError: the first worker met it; raised on every worker, so that none waits on.
        """
        error: InputError | None = None
        if self.rank == 0:
            try:
                action()
            except InputError as met:
                error = met
        error = self.gather(error)[0]
        if error is not None:
            raise error
