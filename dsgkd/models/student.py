"""A student: an encoder with a classification head, the architecture's own or one of `heads`.

Every student is called as `student(input_ids, attention_mask, output_hidden_states=False)` and
returns `.logits` [batch, classes] and `.hidden_states`; one whose head needs words is given
`spans` besides. Importing this module teaches transformers' Auto classes the `dsgkd-student`
architecture, in which students with a head of `heads` are saved.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from dsgkd.errors import InputError
from dsgkd.models.config import StudentConfig
from dsgkd.models.heads import Encoded, Head, find_head
from dsgkd.models.hub import load_config, load_model
from dsgkd.models.projection import Projection, load_projection


class Student(nn.Module):
    """An encoder and a head of `dsgkd.models.heads` on it."""

    def __init__(self, encoder: PreTrainedModel, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        pooler = getattr(encoder, "pooler", None)
        if isinstance(pooler, nn.Module) and not head.needs_pooler:
            # Data parallelism waits for the gradient of every parameter that can have one.
            pooler.requires_grad_(False)

    @property
    def needs_words(self) -> bool:
        """Whether it has to be given the `spans` of its words."""
        return self.head.needs_words

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        spans: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits [batch, classes], and hidden states if asked for.

        Args:
            input_ids: [batch, length].
            attention_mask: [batch, length], 1 for a token; None: no text is padded.
            output_hidden_states: whether to return the states of all layers.
            spans: half-open token spans of the words, [batch, words, 2], [0, 0] where absent.
        """
        output = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )
        pooler_output = getattr(output, "pooler_output", None)
        encoded = Encoded(output.last_hidden_state, pooler_output, attention_mask, spans)
        logits = self.head(encoded)
        return SequenceClassifierOutput(logits=logits, hidden_states=output.hidden_states)


class StudentModelConfig(PretrainedConfig):
    """What transformers has to know to build a `Student` again."""

    model_type = "dsgkd-student"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        head: str = "",
        dropout: float = 0.0,
        projected: int = 0,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.head = head
        self.dropout = dropout
        self.projected = projected  # features of the head's projection, if it has one
        super().__init__(**kwargs)

    @classmethod
    def of(cls, student: Student, head: str, label_names: tuple[str, ...]) -> "StudentModelConfig":
        """Describe a student; `head` is the name under which `find_head` finds its head."""
        projection = projection_of(student.head)
        encoder = student.encoder.config.to_diff_dict()
        encoder.pop("_name_or_path", None)  # a path of this machine
        id2label = dict(enumerate(label_names))
        label2id = {name: index for index, name in id2label.items()}
        return cls(
            encoder,
            head,
            student.head.dropout.p,
            0 if projection is None else len(projection.weight),
            id2label=id2label,
            label2id=label2id,
            architectures=[StudentModel.__name__],
            dtype="float32",
        )


class StudentModel(PreTrainedModel):
    """A `Student` as a model of transformers, whose pipelines and Auto classes load it."""

    config_class = StudentModelConfig

    def __init__(self, config: StudentModelConfig) -> None:
        # Not what the base class makes of it: None lets the encoder choose what it supports.
        attention = config._attn_implementation
        super().__init__(config)
        head_class = find_head(config.head)
        if head_class is None:
            raise ValueError(f"head {config.head!r} belongs to the architecture of the encoder")
        assert config.num_labels is not None
        encoder = AutoModel.from_config(
            AutoConfig.for_model(**config.encoder), attn_implementation=attention
        )
        width = encoder.config.hidden_size
        head = head_class(width, config.num_labels, config.dropout)
        if config.projected:
            empty = torch.zeros(config.projected, width)
            head.project(Projection(empty, empty[:, 0]))
        self.student = Student(encoder, head)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        spans: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Run the student; what else tokenizers give, such as `token_type_ids`, is not read."""
        output: SequenceClassifierOutput = self.student(
            input_ids, attention_mask, bool(output_hidden_states), spans
        )
        return output


AutoConfig.register(StudentModelConfig.model_type, StudentModelConfig, exist_ok=True)
AutoModelForSequenceClassification.register(StudentModelConfig, StudentModel, exist_ok=True)


def new_student(
    settings: StudentConfig, reference: str, num_classes: int, attention: str
) -> nn.Module:
    """Build a student on a pre-trained encoder; a new head is drawn from the current random state.

    A saved student with the same head and number of classes goes on with its trained head.

    Args:
        settings: which head, and its dropout.
        reference: local folder or hub id of the encoder or saved student.
        num_classes: number of classes.
        attention: name of a registered attention function.

    Raises:
        InputError: it cannot be loaded, or a saved student with a head of `heads` was to get the
            architecture's own.
    """
    head_class = find_head(settings.head)
    saved = load_config(reference)
    is_student = isinstance(saved, StudentModelConfig)
    if head_class is None and is_student:
        what = f"a student with the head {saved.head!r}, which the architecture's own cannot follow"
        raise InputError(reference, what, f"choose the head {saved.head!r}")
    if head_class is None:
        auto_class = AutoModelForSequenceClassification
        return load_model(reference, attention, auto_class, num_labels=num_classes)
    trained = None
    if is_student:
        model = load_model(reference, attention, AutoModelForSequenceClassification)
        assert isinstance(model, StudentModel)
        student = model.student
        encoder = student.encoder.requires_grad_(True)
        if (saved.head, saved.num_labels) == (settings.head, num_classes):
            trained = student.head
    else:
        encoder = load_model(reference, attention)
    width = encoder.config.hidden_size
    head = head_class(width, num_classes, settings.dropout)
    projection = projection_of(trained) if trained else load_projection(reference, width)
    if projection is not None:
        head.project(projection)
    if trained is not None:
        head.load_state_dict(trained.state_dict())
    return Student(encoder, head)


def projection_of(head: Head) -> Projection | None:
    """Return the projection through which a head looks at the words, if it does."""
    part = head.encoder_part()
    return Projection(part.weight, part.bias) if isinstance(part, nn.Linear) else None


def encoder_of(student: nn.Module) -> PreTrainedModel:
    """Return the encoder inside a student, or inside any model of transformers."""
    encoder = student.encoder if isinstance(student, Student) else student.base_model
    assert isinstance(encoder, PreTrainedModel)
    return encoder


def encoder_parameters(student: nn.Module) -> list[nn.Parameter]:
    """Return what learns at the rate of the encoder: the encoder, and a head's projection."""
    found = list(encoder_of(student).parameters())
    part = student.head.encoder_part() if isinstance(student, Student) else None
    return found if part is None else [*found, *part.parameters()]


def needs_words(student: nn.Module) -> bool:
    """Whether a student has to be given the `spans` of its words."""
    return bool(getattr(student, "needs_words", False))
