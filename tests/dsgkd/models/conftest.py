"""Students on tiny encoders."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dsgkd.models.student import StudentConfig, encoder_of, new_student


@pytest.fixture
def make_encoder(tmp_path, make_model, word_tokenizer) -> Callable[[str], str]:
    """Save a tiny encoder with its tokenizer; return its folder."""

    def make(family: str = "bert") -> str:
        folder = tmp_path / f"{family}-encoder"
        if not folder.exists():
            make_model(family).save_pretrained(folder)
            word_tokenizer.save_pretrained(folder)
        return str(folder)

    return make


@pytest.fixture
def make_student(make_encoder) -> Callable[..., nn.Module]:
    """A student in evaluation mode, whose head tells texts apart; three classes."""

    def make(head: str = "cls", family: str = "bert", reference: str = "") -> nn.Module:
        torch.manual_seed(0)
        reference = reference or make_encoder(family)
        student = new_student(StudentConfig(reference, head), reference, 3, "dsgkd_plain")
        encoder = {id(parameter) for parameter in encoder_of(student).parameters()}
        with torch.no_grad():
            for parameter in student.parameters():
                if id(parameter) not in encoder and parameter.ndim > 1:
                    nn.init.normal_(parameter, std=0.3)
        return student.eval()

    return make
