"""A run that goes on draws what it would have drawn."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsgkd.models.randomness import random_state, restore_random_state, seed_everything
from dsgkd.storage.checkpoint import load_state, save_state


def test_every_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    def draw() -> tuple[Any, ...]:
        return random.random(), np.random.normal(), torch.rand(1).item()

    seed_everything(3)
    draw()
    np.random.normal()  # numpy keeps every second normal for later
    save_state(tmp_path / "a", random_state())
    expected = [draw() for _ in range(3)]
    seed_everything(4)

    restore_random_state(load_state(tmp_path / "a"))
    assert [draw() for _ in range(3)] == expected
