"""Which model is trained, and with which head."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

from dsgkd.errors import InputError
from dsgkd.models.names import HEADS


@dataclass(frozen=True)
class StudentConfig:
    """The model that is trained.

    Raises:
        InputError: there is no such head.
    """

    model: str = "tiny-ko"
    """Name of the zoo, hub id or local folder."""
    head: str = "cls"
    """`cls`: the architecture's own head and pooler. `mean` or `max` of the tokens. `words`: mean
    of the tokens beside the mean of the transferred words. `paper`: the DSG-KD reference's two
    layers. Or `package.module:Class`."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout probability of every head but `cls`, which has the architecture's."""

    def __post_init__(self) -> None:
        if self.head not in HEADS and ":" not in self.head:
            remedy = f"use {', '.join(HEADS)}, or package.module:Class"
            raise InputError("head", f"{self.head!r} is not known", remedy)
