"""Tiny models with random weights, a tokenizer, and batches for them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from dsgkd.alignment.batch import Batch, Pair, Side, WordSpans

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": BertConfig,
    "roberta": lambda **sizes: RobertaConfig(pad_token_id=1, **sizes),
    "electra": lambda **sizes: ElectraConfig(embedding_size=16, **sizes),
    "distilbert": lambda **sizes: DistilBertConfig(
        vocab_size=sizes["vocab_size"],
        dim=sizes["hidden_size"],
        n_layers=sizes["num_hidden_layers"],
        n_heads=sizes["num_attention_heads"],
        hidden_dim=sizes["intermediate_size"],
        max_position_embeddings=sizes["max_position_embeddings"],
        num_labels=sizes.get("num_labels", 2),
    ),
    # Every second layer sees a window of six tokens only.
    "modernbert": lambda **sizes: ModernBertConfig(
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        local_attention=6,
        global_attn_every_n_layers=2,
        **sizes,
    ),
    "deberta": lambda **sizes: DebertaV2Config(
        relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, **sizes
    ),
}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """A random model in evaluation mode; the same seed gives the same weights."""

    def make(
        family: str = "bert",
        attention: str = "dsgkd_plain",
        auto_class: Any = AutoModel,
        seed: int = 0,
        **changes: Any,
    ) -> PreTrainedModel:
        config = FAMILIES[family](**SIZES | changes)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return auto_class.from_config(config, attn_implementation=attention).eval()

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """A batch of random tokens; student and teachers cut the same words differently."""

    def make(
        words: Sequence[int] = (3, 1, 0), seed: int = 0, length: int = 24, teachers: int = 1
    ) -> Batch:
        rng = np.random.default_rng(seed)
        width = max(words, default=0)

        def side() -> Side:
            ids = torch.zeros(len(words), length, dtype=torch.long)
            spans = torch.zeros(len(words), width, 2, dtype=torch.long)
            for text, count in enumerate(words):
                position = 1
                for word in range(count):
                    start = position + int(rng.integers(2))
                    position = start + int(rng.integers(1, 4))
                    spans[text, word] = torch.tensor([start, position])
                end = min(length, position + int(rng.integers(2, 6)))
                ids[text, :end] = torch.from_numpy(rng.integers(5, 60, end))
            tokens = int(spans.diff(dim=-1).sum((1, 2)).max())
            return Side(ids, (ids > 0).long(), WordSpans(spans, tokens))

        student = side()
        pairs = [
            Pair(
                student=student.words,
                teacher=side(),
                positions=torch.arange(width).repeat(len(words), 1),
                mask=torch.arange(width) < torch.tensor(words, dtype=torch.long)[:, None],
                keys=torch.arange(len(words)) + 1000 * seed,
                length=length,
            )
            for _ in range(teachers)
        ]
        rows = torch.arange(len(words))
        return Batch(rows, rows % 2, student, tuple(pairs))

    return make


@pytest.fixture(scope="session")
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Every word one token, of a vocabulary of 60."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = [*special, *(f"w{number}" for number in range(5, 60))]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
