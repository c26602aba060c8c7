"""The examples of the documentation are code that works."""

import ast
import re
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from dsgkd.models.taps import WordStates

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_can_be_parsed(page: Path) -> None:
    for example in examples(page):
        ast.parse(example)


def test_the_criterion_is_zero_for_equal_directions_and_one_for_orthogonal_ones() -> None:
    names: dict = {}
    exec(examples(ROOT / "CONTRIBUTING.md")[0], names)
    config = BertConfig(hidden_size=2)
    criterion = names["Cosine"](((1, 2),), config, config, 16)
    assert [request.hidden_layers for request in criterion.requests(criterion.pairs)] == [
        (1,),
        (2,),
    ]
    student = WordStates({1: torch.tensor([[[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]]])}, {})
    teacher = WordStates({2: torch.tensor([[[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])}, {})
    mask = torch.tensor([[True, True, False]])
    assert criterion(student, teacher, mask, 2.0).item() == pytest.approx(0.5)
