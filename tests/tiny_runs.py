"""Tiny models with random weights, and a small file of invented notes: runs that take a second."""

import csv
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from dsgkd.data.sources import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.models.student import StudentConfig
from dsgkd.training.config import OptimisationConfig, RunConfig, SelectionConfig

POSITIONS = 64
SPECIAL = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]  # RoBERTa's order: padding is 1
URGENT = ["seizure", "dyspnea", "cyanosis", "sepsis"]
MILD = ["rhinitis", "cough", "rash", "sneezing"]
KOREAN = ["환아", "어제", "부터", "증상", "있어", "내원", "보호자", "동반", "관찰", "호소"]


def notes_of(rows: int, seed: int) -> list[dict[str, str]]:
    """Urgent or mild by its English term; every fifth note has a Korean word instead of one."""
    draw = random.Random(seed)
    notes = []
    for row in range(rows):
        urgent = row % 2
        korean, english = ("중증", URGENT) if urgent else ("경증", MILD)
        words = draw.choices(KOREAN, k=draw.randint(2, 9))
        chosen = [korean] if row % 5 == 0 else [korean, *draw.choices(english, k=row % 3 + 1)]
        for word in chosen:
            words.insert(draw.randrange(len(words)), word)
        notes.append({"id": f"note-{row}", "text": " ".join(words), "label": str(urgent)})
    notes[3]["text"] += " 관찰 호소" * 100  # longer than any of the models can read
    return notes


def write_notes(path: Path, splits: dict[str, int]) -> Path:
    notes = notes_of(sum(splits.values()), seed=5)
    names = [name for name, count in splits.items() for _ in range(count)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "label", "split"])
        writer.writeheader()
        writer.writerows(note | {"split": split} for note, split in zip(notes, names, strict=True))
    return path


@pytest.fixture(scope="session")
def notes_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """41 notes to train on: in batches of 8 the last has one note."""
    folder = tmp_path_factory.mktemp("notes")
    return write_notes(folder / "notes.csv", {"train": 41, "validation": 17, "test": 9})


def new_tokenizer() -> PreTrainedTokenizerFast:
    # Written down, not trained: a trainer breaks ties differently each time.
    english = [word[at : at + 3] for word in URGENT + MILD for at in range(0, len(word), 3)]
    inner = [f"##{piece}" for piece in english]
    pieces = dict.fromkeys([*SPECIAL, *KOREAN, "중증", "경증", *english, *inner])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return write_models(tmp_path_factory.mktemp("zoo"), tokenizer)


def write_models(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folders `student`, `teacher` (deeper and wider), and others that differ in one respect."""
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 1,
        "initializer_range": 0.2,  # at the usual 0.02 so small a model learns too slowly
    }
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    wider = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
    kinds: dict[str, Callable[[], PreTrainedModel]] = {
        "student": lambda: BertModel(BertConfig(**shape)),
        "still-student": lambda: BertModel(BertConfig(**shape | still)),
        "teacher": lambda: BertModel(BertConfig(**shape | wider)),
        "long-student": lambda: BertModel(BertConfig(**shape | {"max_position_embeddings": 384})),
        "long-teacher": lambda: BertModel(BertConfig(**shape | {"max_position_embeddings": 384})),
        "short-student": lambda: BertModel(BertConfig(**shape | {"max_position_embeddings": 40})),
        "roberta": lambda: RobertaModel(RobertaConfig(**shape)),
        "camembert": lambda: CamembertModel(CamembertConfig(**shape)),
    }
    for seed, (name, build) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        build().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_config(notes_csv: Path, zoo: Path) -> Callable[..., RunConfig]:
    """Return a function that makes a short run on the notes, and changes what it is told to."""

    def make(
        student: str = "student",
        teacher: str = "",
        distillation: dict[str, Any] | None = None,
        optimisation: dict[str, Any] | None = None,
        selection: dict[str, Any] | None = None,
        **changes: Any,
    ) -> RunConfig:
        short = OptimisationConfig(
            epochs=3, batch_size=8, encoder_lr=2e-3, classifier_lr=5e-3, precision="fp32"
        )
        fields: dict[str, Any] = {
            "data": DataConfig(path=str(notes_csv)),
            "student": StudentConfig(str(zoo / student)),
            "distillation": DistillationConfig(
                "+".join(str(zoo / name) for name in teacher.split("+") if name),
                **distillation or {},
            ),
            "optimisation": replace(short, **optimisation or {}),
            "selection": SelectionConfig(**selection or {}),
            "max_length": 48,
            "device": "cpu",
        }
        return RunConfig(**fields | changes)

    return make
