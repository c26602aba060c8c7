"""What a pre-training is asked, and the name of the model that it makes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, MultipleOf

from dsgkd.configuration import (
    Accepts,
    Count,
    LearningRate,
    NonNegative,
    Part,
    Seed,
    Share,
    Text,
    Whole,
    config,
)

_RECIPE = 3
"""Raised when the code makes another model of the same corpus and configuration."""


@config
class PretrainingConfig:
    """Masked-language-model pre-training of one model."""

    init: Text = ""
    """Model to continue from (hub id or folder); empty: from scratch, tokenizer included."""
    vocabulary: Count = 8000
    """WordPiece vocabulary size of a new tokenizer."""
    layers: Count = 2
    """Shallow on purpose: in minutes on a CPU, two layers learn more than four."""
    width: Annotated[
        int, Ge(64), Le(2**14), MultipleOf(64), Accepts("a multiple of 64, at most 16384")
    ] = 256
    """Hidden size; heads are 64 wide, the feed-forward layer is 4 times as wide."""
    length: Annotated[int, Ge(8), Le(512)] = 64
    """Tokens of a training sequence; texts are packed."""
    tokens: Count = 4_000_000
    """Tokens to read in all (not distinct ones)."""
    batch_size: Count = 16
    """Sequences in a step. Small on purpose: more steps matter more than smooth gradients."""
    lr: LearningRate = 1e-3
    """Peak learning rate; continued pre-training wants about 5e-5."""
    warmup_share: Share = 0.06
    """Share of all steps in which the learning rate rises."""
    weight_decay: Annotated[float, Ge(0), Le(10)] = 0.01
    """AdamW's decay; none on biases and normalisation weights."""
    mask_share: Part = 0.2
    """Share of tokens to predict, special ones left out; of those 80 % masked, 10 % replaced, 10 %
    kept. With .15 small models stay on their plateau longer."""
    dropout: bool = False
    """Drop units in training; worth it only for many passes over little text."""
    held_out_share: Part = 0.02
    """Share of sequences that are only evaluated on."""
    max_texts: Whole = 0
    """Use at most this many texts of the corpus, evenly spread; 0: all."""
    checkpoint_seconds: NonNegative = 60.0
    """Time between checkpoints from which an interrupted run goes on; 0: at evaluations only."""
    seed: Seed = 17
    """Decides first weights, order and masks."""


def spread(texts: Sequence[str], most: int) -> Sequence[str]:
    """Return at most so many texts, evenly spread; 0: all."""
    if not most or len(texts) <= most:
        return texts
    return [texts[i] for i in np.linspace(0, len(texts) - 1, most).astype(int)]


def fingerprint_of(texts: Sequence[str], config: PretrainingConfig) -> str:
    """Return a hash of a corpus and of what decides the model that is made of it."""
    # How often a checkpoint is written changes nothing in the model.
    facts = asdict(replace(config, checkpoint_seconds=0.0)) | {"recipe": _RECIPE}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def pretraining_key(texts: Sequence[str], config: PretrainingConfig) -> str:
    """Return the content hash that names a pre-trained model: corpus and configuration."""
    return fingerprint_of(spread(texts, config.max_texts), config)[:16]
