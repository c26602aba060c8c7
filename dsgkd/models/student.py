"""What is a student? An encoder with a classification head, the standard one or the paper's.

A student with the standard head is a plain transformers model: `pipeline("text-classification")`
loads its folder. `dsgkd.json` beside it holds what prediction needs besides weights.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from dsgkd.errors import InputError, StorageError
from dsgkd.models.config import Head, StudentConfig
from dsgkd.models.hub import load_model, load_tokenizer


class PaperClassifier(nn.Module):
    """Encoder, pooler, dropout, linear(H -> H), GELU, dropout, linear(H -> classes).

    The head of the DSG-KD reference (arXiv 2409.14904). Encoders without a pooler give their
    first token's state.
    """

    def __init__(self, encoder: PreTrainedModel, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool = False
    ) -> SequenceClassifierOutput:
        """Return logits [batch, classes], and hidden states if asked for."""
        output = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state[:, 0]
        return SequenceClassifierOutput(
            logits=self.head(pooled), hidden_states=output.hidden_states
        )


def new_student(
    config: StudentConfig, reference: str, num_classes: int, attention: str
) -> nn.Module:
    """Build a student on a pre-trained encoder; the head is drawn from the current random state."""
    if config.head == "paper":
        encoder = load_model(reference, attention)
        return PaperClassifier(encoder, num_classes, config.dropout)
    return load_model(
        reference, attention, AutoModelForSequenceClassification, num_labels=num_classes
    )


def encoder_of(student: nn.Module) -> PreTrainedModel:
    """Return the encoder inside a student."""
    if isinstance(student, PaperClassifier):
        return student.encoder
    encoder = student.base_model
    assert isinstance(encoder, PreTrainedModel)
    return encoder


@dataclass(frozen=True)
class StudentCard:
    """What prediction needs to know besides the weights. Holds nothing of any text."""

    label_names: tuple[str, ...]
    head: Head
    max_length: int
    threshold: float
    """Binary tasks: the positive class is chosen from this probability on."""
    method: str
    measures: dict[str, float]
    """Validation measures of these weights."""


def save_student(
    folder: Path, student: nn.Module, tokenizer: PreTrainedTokenizerBase, card: StudentCard
) -> None:
    """Write a student that `load_student` reads (and transformers, with the standard head).

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        encoder = student.encoder if isinstance(student, PaperClassifier) else student
        assert isinstance(encoder, PreTrainedModel)
        encoder.config.id2label = dict(enumerate(card.label_names))
        encoder.config.label2id = {name: index for index, name in enumerate(card.label_names)}
        encoder.save_pretrained(folder)
        if isinstance(student, PaperClassifier):
            save_file(student.head.state_dict(), folder / "head.safetensors")
        tokenizer.save_pretrained(folder)
        facts = json.dumps(asdict(card), ensure_ascii=False, indent=2)
        (folder / "dsgkd.json").write_text(facts, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StorageError.of(folder, error) from error


def load_student(
    folder: Path, attention: str
) -> tuple[nn.Module, PreTrainedTokenizerBase, StudentCard]:
    """Load what `save_student` wrote, in evaluation mode.

    Raises:
        InputError: the folder holds no student, or a damaged one.
    """
    if not (folder / "dsgkd.json").is_file():
        raise InputError(
            str(folder),
            "no dsgkd.json in it, so no trained student",
            "give the folder of a student",
        )
    student: nn.Module
    try:
        facts = json.loads((folder / "dsgkd.json").read_text(encoding="utf-8"))
        card = StudentCard(**{**facts, "label_names": tuple(facts["label_names"])})
        if card.head == "paper":
            student = PaperClassifier(
                load_model(str(folder), attention, AutoModel), len(card.label_names), 0
            )
            student.head.load_state_dict(load_file(folder / "head.safetensors"))
        else:
            student = load_model(str(folder), attention, AutoModelForSequenceClassification)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            str(folder), "the student in it is damaged", "train it again or copy it anew"
        ) from error
    return student.eval(), load_tokenizer(str(folder)), card
