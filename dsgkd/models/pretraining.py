"""How does a model learn a language? Masked-language-model pre-training, small enough for a CPU.

From scratch a plain random start sits on its plateau for as long as small budgets last. This
recipe leaves it within minutes: two layers, word vectors from a singular value decomposition of
positive pointwise mutual information, sinusoidal positions, the unigram distribution as output
bias, many small steps, and no dropout. Continued pre-training of any masked language model (the
reference's `is_pt`) starts from its weights instead.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from scipy.sparse import coo_array, csr_array
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_linear_schedule_with_warmup,
)

from dsgkd.errors import InputError, StorageError
from dsgkd.models.attention import attention_for
from dsgkd.models.hub import load_model, load_tokenizer
from dsgkd.models.wordpiece import train_tokenizer
from dsgkd.storage.checkpoint import (
    load_state,
    random_state,
    restore_random_state,
    save_state,
    seed_everything,
)

_RECIPE = 2
"""Raised when the code makes another model of the same corpus and configuration."""

_LEAST = {"vocabulary": 1, "layers": 1, "width": 1, "length": 8, "tokens": 1, "batch_size": 1}


@dataclass(frozen=True)
class PretrainingConfig:
    """Masked-language-model pre-training of one model."""

    init: str = ""
    """Model to continue from (hub id or folder); empty: from scratch, tokenizer included."""
    vocabulary: int = 8000
    """WordPiece vocabulary size of a new tokenizer."""
    layers: int = 2
    """Shallow on purpose: in minutes on a CPU, two layers learn more than four."""
    width: int = 256
    """Hidden size; heads are 64 wide, the feed-forward layer is 4 times as wide."""
    length: int = 64
    """Tokens of a training sequence; texts are packed."""
    tokens: int = 4_000_000
    """Tokens to read in all (not distinct ones)."""
    batch_size: int = 16
    """Sequences in a step. Small on purpose: more steps matter more than smooth gradients."""
    lr: float = 1e-3
    """Peak learning rate; continued pre-training wants about 5e-5."""
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    mask_share: float = 0.15
    """Share of tokens to predict; of those 80 % masked, 10 % replaced, 10 % kept."""
    dropout: bool = False
    """Drop units in training; worth it only for many passes over little text."""
    held_out_share: float = 0.02
    """Share of sequences that are only evaluated on."""
    max_texts: int = 0
    """Use at most this many texts of the corpus, evenly spread; 0: all."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints from which an interrupted run goes on."""
    seed: int = 17

    def __post_init__(self) -> None:
        # Shorter sequences than 8 tokens may have none to predict.
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(
                    name, f"{getattr(self, name)} is too small", f"give {least} or more"
                )
        if self.width % 64:
            raise InputError("width", f"{self.width} is no multiple of 64", "use 64, 128, 256, ...")


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
    say: Callable[[str], None] = lambda line: None,
) -> PretrainingReport:
    """Pre-train a model on texts and write it to `folder` as a transformers model.

    Goes on from `folder/pretraining.safetensors` if an earlier call was interrupted.

    Args:
        texts: the corpus.
        config: how.
        folder: where to write model, tokenizer and report.
        say: receives a progress line now and then.

    Raises:
        InputError: too little text, a folder that cannot be written, or a checkpoint of another
            corpus or configuration.
    """
    texts = _spread(texts, config.max_texts)
    if not any(text.strip() for text in texts):
        raise InputError("corpus", "it holds no text", "give a file or folder with text in it")
    say(f"{len(texts):,} texts; preparing the tokenizer and {config.length}-token sequences")
    tokenizer = (
        load_tokenizer(config.init) if config.init else train_tokenizer(texts, config.vocabulary)
    )
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id):
        raise InputError(
            config.init,
            "its tokenizer has no [CLS], [SEP] or [MASK]",
            "give a masked language model",
        )
    sequences = pack(texts, tokenizer, config.length)
    held_out = max(1, round(len(sequences) * config.held_out_share))
    if len(sequences) < 2:
        raise InputError(
            "corpus", f"less than two sequences of {config.length} tokens", "give more text"
        )
    order = np.random.default_rng(config.seed).permutation(len(sequences))
    validation, training = sequences[order[:held_out]], sequences[order[held_out:]]

    seed_everything(config.seed)
    model = _start(config, tokenizer, training)
    trained = _Training(model, tokenizer, config, folder, _fingerprint(texts, config))
    seconds = trained.run(training, say)
    loss, accuracy = trained.evaluate(validation)
    report = PretrainingReport(
        len(texts),
        len(sequences),
        trained.steps,
        loss,
        accuracy,
        trained.steps * config.batch_size * config.length / max(seconds, 1e-9),
        seconds,
    )
    _write(folder, model, tokenizer, report)
    say(
        f"held-out masked loss {loss:.2f}, accuracy {accuracy:.3f}; "
        f"{report.tokens_per_second:,.0f} tokens/s, {seconds:.0f} s"
    )
    return report


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


class _Training:
    """Model, optimizer and position of one pre-training, able to stop and go on."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainingConfig,
        folder: Path,
        fingerprint: str,
    ) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.checkpoint = folder / "pretraining.safetensors"
        self.fingerprint = fingerprint
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)  # type: ignore[arg-type]
        self.steps = math.ceil(config.tokens / (config.batch_size * config.length))
        decayed = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            fused=True,
        )
        self.schedule = get_linear_schedule_with_warmup(
            self.optimizer, int(config.warmup_share * self.steps), self.steps
        )
        # Only masked positions reach the language-model head: the vocabulary's logits would
        # otherwise be most of the work. The hook sees the encoder's output before any head does.
        self.chosen: Tensor | None = None
        model.base_model.register_forward_hook(self._keep_chosen)

    def _keep_chosen(self, module: nn.Module, inputs: object, output: object) -> None:
        if self.chosen is not None:
            states = output.last_hidden_state  # type: ignore[attr-defined]
            output.last_hidden_state = states[self.chosen][None]  # type: ignore[attr-defined]

    def loss(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mask a batch [batch, length]; return mean loss and the number of exact predictions."""
        masked, chosen = mask_tokens(ids, self.tokenizer, self.config.mask_share, generator)
        self.chosen = chosen.to(self.device)
        bf16 = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self.model(input_ids=masked.to(self.device)).logits[0]
        self.chosen = None
        truth = ids[chosen].to(self.device)
        loss = nn.functional.cross_entropy(logits.float(), truth)
        return loss, (logits.argmax(-1) == truth).sum()

    def run(self, sequences: NDArray[np.int32], say: Callable[[str], None]) -> float:
        """Train to the last step; return the seconds spent, over all interruptions."""
        first, spent = self._resume(say)
        generator = torch.Generator()
        started = saved = said = time.perf_counter()
        self.model.train(self.config.dropout)
        recent: list[float] = []
        for step, rows in enumerate(_batches(len(sequences), self.config, self.steps)):
            if step < first:
                continue
            generator.manual_seed(self.config.seed * 1_000_003 + step)
            loss, _ = self.loss(torch.from_numpy(sequences[rows]).long(), generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            recent.append(loss.item())
            now = time.perf_counter()
            if now - said > 15:
                done = (step + 1) / self.steps
                say(f"{done:4.0%}  step {step + 1:,}/{self.steps:,}  loss {np.mean(recent):.2f}")
                said, recent = now, []
            if now - saved > self.config.checkpoint_seconds:
                self._save(step + 1, spent + now - started)
                saved = now
        return spent + time.perf_counter() - started

    @torch.no_grad()
    def evaluate(self, sequences: NDArray[np.int32]) -> tuple[float, float]:
        """Return loss and accuracy on masked tokens of held-out sequences."""
        self.model.eval()
        generator = torch.Generator().manual_seed(self.config.seed)
        losses, exact, tokens = [], 0, 0
        for start in range(0, len(sequences), 64):
            ids = torch.from_numpy(sequences[start : start + 64]).long()
            loss, right = self.loss(ids, generator)
            count = round(ids.shape[0] * ids.shape[1] * self.config.mask_share)
            losses.append(loss.item() * count)
            exact, tokens = exact + int(right), tokens + count
        return sum(losses) / tokens, exact / tokens

    def _save(self, step: int, seconds: float) -> None:
        save_state(
            self.checkpoint,
            {
                "fingerprint": self.fingerprint,
                "step": step,
                "seconds": seconds,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": random_state(),
            },
        )

    def _resume(self, say: Callable[[str], None]) -> tuple[int, float]:
        if not self.checkpoint.is_file():
            return 0, 0.0
        state = load_state(self.checkpoint)
        if state["fingerprint"] != self.fingerprint:
            raise InputError(
                str(self.checkpoint),
                "it belongs to another corpus or configuration",
                "delete it or choose another --out",
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        restore_random_state(state["random"])
        say(f"going on from step {state['step']:,}")
        return state["step"], state["seconds"]


def mask_tokens(
    ids: Tensor, tokenizer: PreTrainedTokenizerBase, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict and hide them (BERT, arXiv 1810.04805, section 3.1).

    Args:
        ids: [batch, length].
        tokenizer: gives the mask and the special tokens, which are never chosen.
        share: share of each sequence to choose.
        generator: source of randomness.

    Returns:
        The ids with 80 % of the chosen masked and 10 % replaced, and the choice, both
        [batch, length]. The number chosen is the same for every batch of one shape.
    """
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    noise = torch.rand(ids.shape, generator=generator)
    noise = noise.masked_fill(torch.isin(ids, special), -1.0)
    count = max(1, round(ids.numel() * share))
    chosen = torch.zeros(ids.numel(), dtype=torch.bool)
    chosen[noise.flatten().topk(count).indices] = True
    chosen = chosen.view(ids.shape)
    fate = torch.rand(ids.shape, generator=generator)
    masked = ids.masked_fill(chosen & (fate < 0.8), int(tokenizer.mask_token_id))
    random_ids = torch.randint(len(tokenizer), ids.shape, generator=generator)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked), chosen


def _batches(count: int, config: PretrainingConfig, steps: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows of sequences, epoch after epoch, in an order that only the seed decides."""
    order = np.empty(0, np.int64)
    generator = np.random.default_rng(config.seed)
    for _ in range(steps):
        while len(order) < config.batch_size:
            order = np.concatenate([order, generator.permutation(count)])
        yield order[: config.batch_size]
        order = order[config.batch_size :]


def _start(
    config: PretrainingConfig, tokenizer: PreTrainedTokenizerBase, sequences: NDArray[np.int32]
) -> PreTrainedModel:
    attention = attention_for("cuda" if torch.cuda.is_available() else "cpu")
    if config.init:
        return load_model(config.init, attention, AutoModelForMaskedLM)
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
    return model


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


def _spread(texts: Sequence[str], most: int) -> Sequence[str]:
    if not most or len(texts) <= most:
        return texts
    return [texts[i] for i in np.linspace(0, len(texts) - 1, most).astype(int)]


def _fingerprint(texts: Sequence[str], config: PretrainingConfig) -> str:
    # How often a checkpoint is written changes nothing in the model.
    facts = asdict(replace(config, checkpoint_seconds=0.0)) | {"recipe": _RECIPE}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def pretraining_key(texts: Sequence[str], config: PretrainingConfig) -> str:
    """Return the content hash that names a pre-trained model: corpus and configuration."""
    return _fingerprint(_spread(texts, config.max_texts), config)[:16]


def _write(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: PretrainingReport,
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "pretraining.json").write_text(json.dumps(asdict(report), indent=2))
        (folder / "pretraining.safetensors").unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise StorageError.of(folder, error) from error
