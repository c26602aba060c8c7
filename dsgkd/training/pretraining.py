"""Pre-training of small masked language models: a task on the loop, with a start of its own.

From scratch a plain random start sits on its plateau for as long as small budgets last. This
recipe leaves it within minutes: two layers, word vectors from a singular value decomposition of
positive pointwise mutual information, sinusoidal positions, the unigram distribution as output
bias, many small steps, and no dropout. Continued pre-training of any masked language model (the
reference's `is_pt`) starts from its weights instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from sklearn.utils.extmath import randomized_svd
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerBase

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.data.world import WorldConfig
from dsgkd.distillation.distiller import Distiller
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.folder import save_model
from dsgkd.models.hub import load_tokenizer
from dsgkd.models.masked import MaskedStudent, load_masked
from dsgkd.models.randomness import seed_everything
from dsgkd.models.wordpiece import train_tokenizer
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.training.config import OptimisationConfig, RunConfig, SelectionConfig
from dsgkd.training.loop import EpochResult, train
from dsgkd.training.on_the_fly import (
    configuration,
    corpus,
    folder_of,
    is_built,
    is_built_here,
    label,
)
from dsgkd.training.opening import OpenRun, where_to_run
from dsgkd.training.pretraining_config import PretrainingConfig, fingerprint_of, spread

_EVALUATIONS = 4
"""Held-out evaluations on the way; each is an epoch of the loop."""


@dataclass(frozen=True)
class PretrainingReport:
    """How pre-training went; written as `pretraining.json` beside the model."""

    texts: int
    sequences: int
    steps: int
    loss: float
    """Mean masked cross-entropy on held-out sequences, nats per masked token."""
    masked_accuracy: float
    """Share of held-out masked tokens predicted exactly."""
    tokens_per_second: float
    seconds: float


def pretrain(
    texts: Sequence[str],
    config: PretrainingConfig,
    folder: Path,
    notify: Callable[[str], None] = lambda line: None,
) -> PretrainingReport:
    """Pre-train a model on texts and write it to `folder` as a transformers model.

    Goes on from the checkpoints in `folder` if an earlier call was interrupted.

    Args:
        texts: the corpus.
        config: how.
        folder: where to write model, tokenizer and report.
        notify: receives a progress line now and then.

    Raises:
        InputError: too little text, a folder that cannot be written, or a checkpoint of another
            corpus or configuration.
    """
    texts = spread(texts, config.max_texts)
    if not any(text.strip() for text in texts):
        raise InputError("corpus", "it holds no text", "give a file or folder with text in it")
    notify(f"{len(texts):,} texts; preparing the tokenizer and {config.length}-token sequences")
    run = open_pretraining(texts, config)
    checkpoints = Checkpoints(folder / "checkpoints")
    seconds, result = 0.0, None
    for result in train(run, checkpoints, known_epochs=0):
        notify(_line(result, run.config.optimisation))
        seconds += result.seconds
    assert result is not None  # there is one epoch at least
    held_out = result.validation
    steps = run.config.optimisation.steps
    report = PretrainingReport(
        len(texts),
        len(run.texts) + len(run.validation),
        steps,
        held_out["loss"],
        held_out["masked_accuracy"],
        steps * config.batch_size * config.length / max(seconds, 1e-9),
        seconds,
    )
    model = run.student
    assert isinstance(model, MaskedStudent)
    save_model(folder, model.model, run.tokenizer, {"pretraining.json": asdict(report)})
    notify(
        f"held-out masked loss {report.loss:.2f}, accuracy {report.masked_accuracy:.3f}; "
        f"{report.tokens_per_second:,.0f} tokens/s, {seconds:.0f} s"
    )
    return report


def open_pretraining(texts: Sequence[str], config: PretrainingConfig) -> OpenRun:
    """Return pre-training as a run that is ready for its first step; errors as `pretrain`."""
    tokenizer = (
        load_tokenizer(config.init) if config.init else train_tokenizer(texts, config.vocabulary)
    )
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
        what = "its tokenizer has no [CLS], [SEP] or [MASK]"
        raise InputError(config.init, what, "give a masked language model")
    blocks = pack(texts, tokenizer, config.length)
    if len(blocks) < 2:
        what = f"less than two sequences of {config.length} tokens"
        raise InputError("corpus", what, "give more text")
    held_out = max(1, round(len(blocks) * config.held_out_share))
    order = np.random.default_rng(config.seed).permutation(len(blocks))
    validation, training = blocks[order[:held_out]], blocks[order[held_out:]]
    steps = math.ceil(config.tokens / (config.batch_size * config.length))
    run = RunConfig(
        task=MaskedLanguageModel(mask_share=config.mask_share),
        optimisation=OptimisationConfig(
            epochs=min(_EVALUATIONS, steps),
            steps=steps,
            batch_size=config.batch_size,
            encoder_lr=config.lr,
            classifier_lr=config.lr,
            weight_decay=config.weight_decay,
            warmup_share=config.warmup_share,
            dropout=config.dropout,
            checkpoint_seconds=config.checkpoint_seconds,
            evaluation_batch_size=64,
        ),
        selection=SelectionConfig(objective="loss", stop_when_stale=()),
        max_length=config.length,
        seed=config.seed,
    )
    seed_everything(config.seed)
    device, autocast = where_to_run(run)
    student = _start(config, tokenizer, training, attention_for(device))
    task = run.task.bound(tokenizer)
    pad = int(tokenizer.pad_token_id or 0)
    return OpenRun(
        config=run,
        task=task,
        texts=EncodedTexts.of_view(View.of_blocks(training, pad), "corpus", "train"),
        validation=EncodedTexts.of_view(View.of_blocks(validation, pad), "corpus", "validation"),
        label_names=(),
        fingerprint=fingerprint_of(texts, config),
        tokenizer=tokenizer,
        distiller=Distiller(student, task, dropout=config.dropout).to(device),
        teachers=(),
        device=device,
        autocast=autocast,
    )


def _line(result: EpochResult, optimisation: OptimisationConfig) -> str:
    return (
        f"{result.step / optimisation.steps:4.0%}  step {result.step:,}/{optimisation.steps:,}  "
        f"loss {result.loss:.2f}, held out {result.validation['loss']:.2f}"
    )


def pack(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int
) -> NDArray[np.int32]:
    """Join texts end to end and cut them into full sequences, [sequences, length]."""
    ids = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    separator = [tokenizer.sep_token_id]
    stream = np.concatenate([np.asarray([*item, *separator], np.int32) for item in ids])
    body = length - 1
    count = len(stream) // body
    rows = stream[: count * body].reshape(count, body)
    return np.hstack([np.full((count, 1), tokenizer.cls_token_id, np.int32), rows])


def _start(
    config: PretrainingConfig,
    tokenizer: PreTrainedTokenizerBase,
    sequences: NDArray[np.int32],
    attention: str,
) -> MaskedStudent:
    if config.init:
        return load_masked(config.init, attention)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.width // 64,
        intermediate_size=4 * config.width,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    shape._attn_implementation = attention
    model = BertForMaskedLM(shape)
    counts = np.bincount(sequences.ravel(), minlength=len(tokenizer)) + 1.0
    with torch.no_grad():
        words = model.bert.embeddings.word_embeddings.weight
        words.copy_(
            torch.from_numpy(word_vectors(sequences, len(tokenizer), config.width, config.seed))
        )
        positions = model.bert.embeddings.position_embeddings.weight
        positions.copy_(_sinusoids(*positions.shape))
        model.cls.predictions.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return MaskedStudent(model)


def word_vectors(
    sequences: NDArray[np.int32], vocabulary: int, width: int, seed: int, window: int = 4
) -> NDArray[np.float32]:
    """Return word vectors [vocabulary, width] with the scale of BERT's initialisation (0.02).

    Truncated singular value decomposition of positive pointwise mutual information within a
    window (Levy and Goldberg, NeurIPS 2014, section 5).
    """
    total = csr_array((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        left, right = sequences[:, :-distance].ravel(), sequences[:, distance:].ravel()
        pairs = coo_array((np.ones(left.size), (left, right)), shape=(vocabulary, vocabulary))
        total = total + pairs.tocsr() / distance
    total = (total + total.T).tocoo()
    row_sums = np.asarray(total.sum(1)).ravel() + 1e-9
    information = np.log(total.data * row_sums.sum() / (row_sums[total.row] * row_sums[total.col]))
    keep = information > 0
    matrix = coo_array(
        (information[keep], (total.row[keep], total.col[keep])), shape=total.shape
    ).tocsr()
    rank = min(width, vocabulary - 1)
    left_vectors, values, _ = randomized_svd(matrix, rank, n_iter=2, random_state=seed)
    vectors = np.zeros((vocabulary, width))
    vectors[:, :rank] = left_vectors * np.sqrt(values)
    noise = np.random.default_rng(seed).normal(size=vectors.shape) * 0.1
    return (0.02 * (vectors / vectors.std().clip(1e-9) + noise)).astype(np.float32)


def _sinusoids(positions: int, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al., section 3.5) at the scale of BERT's initialisation."""
    angle = torch.arange(positions)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return 0.02 * torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def build(
    name: str,
    cache: Path,
    world: WorldConfig,
    config: PretrainingConfig | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Path:
    """Return the folder of a model that is pre-trained on the spot, building it if needed.

    Raises:
        InputError: its corpus cannot be used.
    """
    folder = folder_of(name, cache, world, config)
    if is_built(folder):
        notify(f"{label(name)}: pre-trained before, from {folder}")
        return folder
    pretrain(
        corpus(name, world),
        config or configuration(name),
        folder,
        lambda line: notify(f"{label(name)}: {line}"),
    )
    return folder


def build_missing(
    names: Sequence[str], cache: Path, world: WorldConfig, notify: Callable[[str], None]
) -> None:
    """Pre-train those of the named models that need it, one after the other."""
    for name in dict.fromkeys(names):
        if is_built_here(name):
            build(name, cache, world, notify=notify)
