"""Does a step taken word by word, in loops, give the losses and gradients of the paper form?

The benchmarks measure the library against that rendition, so it has to compute the same.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from benchmarks.reference import ReferenceTraining, Student, span_losses, word_spans
from distilling import batches_of, distiller_of, losses_of
from transformers import AutoTokenizer, BertConfig, BertModel

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.words import WordRule
from dsgkd.data.sources import Notes
from dsgkd.distillation.config import DistillationConfig
from dsgkd.models.hub import load_model
from dsgkd.models.student import StudentConfig, new_student

GOLDEN = Path(__file__).parents[2] / "golden"
LENGTH = 48
TEXTS = [
    "환아 어제 부터 fever 있어 vomiting 호소",
    "보호자 동반 내원",  # no word to transfer
    "seizure 관찰, x-ray 후 dyspnea",
    "환아 " * 40 + "sepsis cyanosis rhinitis sneezing",  # cut at the end
    "cough rash  cough fever로 내원 sneezing",
]


@pytest.fixture(scope="module")
def tokenizers():
    return [
        AutoTokenizer.from_pretrained(GOLDEN / "tokenizers" / n) for n in ("teacher", "student")
    ]


@pytest.fixture
def folders(tokenizers, tmp_path):
    """A teacher and a student of equal shape, as files that both sides load."""
    for seed, (name, tokenizer) in enumerate(zip(("teacher", "student"), tokenizers)):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=LENGTH,
            initializer_range=0.3,  # attention that differs from word to word
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        BertModel(config).save_pretrained(tmp_path / name)
    return tmp_path / "teacher", tmp_path / "student"


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[1:2]], ids=["all", "no word"])
def test_the_rendition_and_the_paper_form_agree(texts, folders, tokenizers, tmp_path):
    teacher, student = map(str, folders)
    model = new_student(StudentConfig(student, "paper", 0.0), student, 2, "dsgkd_plain")
    config = DistillationConfig(
        "t",
        hidden="paper_hidden",
        attention="paper_attention",
        mapping="uniform+emb",
        alpha=0.6,
        beta=0.2,
    )
    teacher = load_model(teacher, "dsgkd_plain")
    distiller, teachers = distiller_of(config, model, teacher, max_length=LENGTH)
    labels = [number % 2 for number in range(len(texts))]
    encoded = EncodedTexts.of(
        _notes(texts, labels), tokenizers[1], tokenizers[:1], LENGTH, WordRule("paper"), tmp_path
    )
    (batch,) = batches_of(encoded, pad_to=LENGTH)
    ours = losses_of(distiller, teachers, batch)
    sum(ours.values()).backward()

    eager = [BertModel.from_pretrained(f, attn_implementation="eager").train() for f in folders]
    rendition = ReferenceTraining(eager[0].eval(), Student(eager[1], 2), *tokenizers)
    rendition.max_length = LENGTH
    layers = {"hidden": rendition.student.head[1], "output": rendition.student.head[4]}
    for name, layer in layers.items():
        layer.load_state_dict(getattr(model.head, name).state_dict())
    theirs = rendition.losses(texts, torch.tensor(labels))
    sum(theirs).backward()

    for one, other in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
    assert (ours["hidden"] > 0) == (ours["attention"] > 0) == (len(texts) > 1)
    for (name, parameter), other in zip(
        model.named_parameters(), rendition.student.parameters(), strict=True
    ):
        torch.testing.assert_close(
            parameter.grad.norm(), other.grad.norm(), rtol=1e-4, atol=1e-6, msg=name
        )


def test_the_rendition_finds_the_golden_spans(tokenizers):
    for entry in json.loads((GOLDEN / "alignment.json").read_text("utf-8")):
        for case in entry["cases"]:
            spans = word_spans(entry["text"], *tokenizers, case["max_length"], case["cs_max_len"])
            for side, name in enumerate(("teacher", "student")):
                expected = [tuple(span) for span in case[f"{name}_span"] if span != [0, 0]]
                assert [pair[side] for pair in spans] == expected


def test_the_rendition_gives_the_golden_losses():
    stored = {key: torch.from_numpy(v) for key, v in np.load(GOLDEN / "span_loss.npz").items()}
    for case in sorted({key.split("_")[0] for key in stored}):
        names = ("teacher_hidden", "student_hidden", "teacher_attn", "student_attn")
        sides = [stored[f"{case}_{side}_span"].tolist() for side in ("teacher", "student")]
        spans = [[pair for pair in zip(*text) if pair != ([0, 0], [0, 0])] for text in zip(*sides)]
        hidden, attention = span_losses(*(list(stored[f"{case}_{name}"]) for name in names), spans)
        torch.testing.assert_close(0.6 * hidden, stored[f"{case}_hidn_loss"])
        torch.testing.assert_close(
            0.2 * attention, stored[f"{case}_attn_loss"], rtol=1e-5, atol=1e-12
        )


def _notes(texts: list[str], labels: list[int]) -> Notes:
    count = len(texts)
    columns = {
        "example_id": pa.array([str(number) for number in range(count)]),
        "group_id": pa.nulls(count, pa.string()),
        "split": pa.array(["train"] * count),
        "label": pa.array(labels, pa.int64()),
        "text": pa.array(texts),
    }
    return Notes(pa.table(columns), ("no", "yes"), str(count), "texts")
