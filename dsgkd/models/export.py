"""Trained students as folders: how they are saved, loaded again and classify raw texts elsewhere.

A folder holds a model of transformers (config.json, model.safetensors, tokenizer) and dsgkd.json.
Where it loads depends on the head:

- `cls`: `transformers.pipeline("text-classification", folder)`, without dsgkd.
- `mean`, `max`, `paper` and plug-ins that need no words: the same, after `import
  dsgkd.models.export`, which teaches transformers the `dsgkd-student` architecture.
- `words`, `projected` and plug-ins that need words: `dsgkd.models.export.pipeline(folder)`, which
  finds the words. It serves every other head as well, and truncates texts as in training;
  transformers' own does so when called with `truncation=True`.

Code from a folder is never run: a plug-in's module has to be installed.
"""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
)

from dsgkd.alignment.view import encode
from dsgkd.alignment.words import WordRule
from dsgkd.configuration import structure
from dsgkd.errors import InputError, StorageError
from dsgkd.models.attention import attention_for
from dsgkd.models.hub import load_model, load_tokenizer
from dsgkd.models.masked import MaskedStudent
from dsgkd.models.student import Student, StudentModel, StudentModelConfig, needs_words
from dsgkd.storage.atomic import atomic_folder

CARD = "dsgkd.json"
"""The file that makes a model folder a student's."""


@dataclass(frozen=True)
class StudentCard:
    """What prediction needs to know besides the weights. Holds nothing of any text."""

    label_names: tuple[str, ...]
    head: str
    """Its name, as in `StudentConfig`."""
    max_length: int
    """The most tokens of a text, with special tokens."""
    threshold: float
    """Binary tasks: the positive class is chosen from this probability on."""
    method: str
    measures: dict[str, float]
    """Validation measures of these weights."""
    words: WordRule
    """Which words a head that needs words is told of."""
    max_transfer_words: int
    """The most words of one text; the first ones are taken."""


def save_student(
    folder: Path, student: nn.Module, tokenizer: PreTrainedTokenizerBase, card: StudentCard
) -> None:
    """Write a student, whole or not at all; one that was there before is replaced.

    Raises:
        StorageError: the folder cannot be written.
        InputError: the folder holds something that is no student.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CARD).is_file():
        raise InputError(str(folder), "holds files that are no student's", "choose another --out")
    try:
        with atomic_folder(folder) as draft:
            _write(draft, student, card.head, card.label_names)
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.model_max_length = card.max_length
            tokenizer.save_pretrained(draft)
            facts = json.dumps(asdict(card), ensure_ascii=False, indent=2)
            (draft / CARD).write_text(facts, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise StorageError.of(folder, error) from error


def save_adapted(
    student: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    head: str,
    label_names: tuple[str, ...],
    folder: Path,
) -> None:
    """Write a student that another run goes on with: its encoder, and its head if it has one.

    Args:
        student: any that a task makes.
        tokenizer: its tokenizer.
        head: the name of its head, as in `StudentConfig`.
        label_names: of the classes that the head tells apart, if it does.
        folder: new and empty.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        _write(folder, student, head, label_names)
        tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError.of(folder, error) from error


def _write(folder: Path, student: nn.Module, head: str, label_names: tuple[str, ...]) -> None:
    if isinstance(student, Student):
        config = StudentModelConfig.of(student, head, label_names)
        config.save_pretrained(folder)
        named = nn.ModuleDict({"student": student})  # as in `StudentModel`
        save_model(named, str(folder / "model.safetensors"), metadata={"format": "pt"})
    elif isinstance(student, MaskedStudent):
        student.model.save_pretrained(folder)
    else:
        assert isinstance(student, PreTrainedModel)
        student.config.id2label = dict(enumerate(label_names))
        student.config.label2id = {name: index for index, name in enumerate(label_names)}
        student.save_pretrained(folder)


def load_student(
    folder: Path, attention: str
) -> tuple[nn.Module, PreTrainedTokenizerBase, StudentCard]:
    """Load what `save_student` wrote, in evaluation mode.

    Raises:
        InputError: the folder holds no student, or a damaged one.
    """
    card = _load_card(folder)
    model = _load_model(folder, attention)
    student = model.student if isinstance(model, StudentModel) else model
    return student.eval(), load_tokenizer(str(folder)), card


def _load_card(folder: Path) -> StudentCard:
    try:
        facts = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return structure(StudentCard, facts)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"no {CARD} in it, so no trained student"
        raise InputError(str(folder), what, "give the folder of a student") from error
    except (OSError, ValueError, InputError) as error:
        what = f"the student in it is damaged ({CARD}: {error})"
        raise InputError(str(folder), what, "train it again or copy it anew") from error


def _load_model(folder: Path, attention: str) -> PreTrainedModel:
    return load_model(str(folder), attention, AutoModelForSequenceClassification, whole=True)


class StudentPipeline(TextClassificationPipeline):
    """Transformers' text classification, for a student that may have to be told of its words."""

    def __init__(self, card: StudentCard, tokenizer: PreTrainedTokenizerBase, **kwargs: Any):
        self.card = card
        tokenizer.padding_side = "right"  # spans are counted from the left
        super().__init__(tokenizer=tokenizer, **kwargs)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Classify a text or texts; see `TextClassificationPipeline`."""
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        assert self.tokenizer is not None
        table = encode(texts, self.tokenizer, self.card.max_length, self.card.words)
        result = super().__call__(table.to_pylist(), **kwargs)
        return result[0] if isinstance(inputs, str) and "top_k" in kwargs else result

    def preprocess(self, inputs: Any, **_: Any) -> Any:  # type: ignore[override]
        """Return the tensors of one text that `encode` has read, as a batch of one."""
        ids = torch.tensor([inputs["input_ids"]])
        tensors = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if needs_words(getattr(self.model, "student", self.model)):
            spans = zip(inputs["word_start"], inputs["word_end"], strict=True)
            known = [span for span in spans if span[0] >= 0][: self.card.max_transfer_words]
            tensors["spans"] = torch.tensor([known or [(0, 0)]])
        return tensors


def pipeline(
    folder: str | Path, device: str | torch.device = "cpu", **options: Any
) -> StudentPipeline:
    """Return a text-classification pipeline of a saved student, whatever its head.

    Its labels are the likeliest classes; the threshold of a binary task is in `.card`.

    Args:
        folder: what `save_student` wrote.
        device: where it runs.
        options: of a pipeline of transformers, such as `batch_size`.

    Raises:
        InputError: the folder holds no student, or a damaged one.
    """
    card = _load_card(Path(folder))
    model = _load_model(Path(folder), attention_for(device)).eval()
    tokenizer = load_tokenizer(str(folder))
    return StudentPipeline(card, tokenizer, model=model, device=device, **options)
