"""The projection that an adaptation has learnt, beside the student that it made.

A criterion such as `projected` learns an affine map from the student's word states to the
teacher's. A head can look at the words through it; see `dsgkd.models.heads.ProjectedHead`.
"""

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsgkd.errors import InputError

FILE = "projection.safetensors"


class Projection(NamedTuple):
    """An affine map of states."""

    weight: Tensor
    """[features, width]."""
    bias: Tensor
    """[features]."""


def save_projection(folder: Path, projection: Projection) -> None:
    """Write it into a model's folder."""
    tensors = projection._asdict().items()
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors}, folder / FILE)


def load_projection(reference: str, width: int) -> Projection | None:
    """Return the projection in a model's folder, or None where there is none.

    Args:
        reference: folder or hub id.
        width: of the states that it is for.

    Raises:
        InputError: the file is damaged, or made for another width.
    """
    file = Path(reference) / FILE
    if not file.is_file():
        return None
    try:
        found = Projection(**load_file(file))
    except (OSError, SafetensorError, TypeError) as error:
        raise InputError(str(file), "damaged", "adapt the student again") from error
    if found.weight.ndim != 2 or found.weight.shape[1] != width:
        what = f"made for states of {found.weight.shape[-1]} features, not {width}"
        raise InputError(str(file), what, "adapt the student again")
    return found
