"""Small tokenisers of every kind, trained on the spot, and notes to put through them."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from dsgkd.data.sources import Notes

TEXTS = [
    "환아 3일 전 부터 fever 있어 local clinic 방문 후 antibiotics 복용 하였으나 vomiting, cough",
    "상기 환아 V/S stable, x-ray 상 pneumonia로 내원. SpO₂ 98% 이며 Crohn’s disease 의심",
    "café naïve COVID-19 IV3회 don't stop Ⅳ 38.5도 fever fever vomiting",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _wordpiece(framed: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=True, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=220, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if framed:
        tokenizer.post_processor = _frame(tokenizer, "[CLS] $A [SEP]")
    return tokenizer


def _byte_level(trim: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    sep, cls = (
        ("[SEP]", tokenizer.token_to_id("[SEP]")),
        ("[CLS]", tokenizer.token_to_id("[CLS]")),
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        sep, cls, trim_offsets=trim, add_prefix_space=False
    )
    return tokenizer


def _sentencepiece_bpe() -> Tokenizer:
    """As Llama: the leading space comes from the normaliser, unknown characters become bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=SPECIAL + bytes_, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = _frame(tokenizer, "[CLS] $A")
    return tokenizer


def _unigram(scheme: str) -> Tokenizer:
    """As T5 and XLM-R: NFKC, a space before the first word, the end marked only."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=150, unk_token="[UNK]", special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = _frame(tokenizer, "$A [SEP]")
    return tokenizer


def _frame(tokenizer: Tokenizer, template: str) -> processors.TemplateProcessing:
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(single=template, special_tokens=special)


@pytest.fixture(scope="session")
def samples() -> list[str]:
    """Three code-switched notes, on which the tokenisers were trained."""
    return TEXTS


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    kinds = {
        "wordpiece": _wordpiece(framed=True),
        "wordpiece without [CLS]": _wordpiece(framed=False),
        "byte-level BPE, trimmed": _byte_level(trim=True),
        "byte-level BPE, untrimmed": _byte_level(trim=False),
        "SentencePiece BPE": _sentencepiece_bpe(),
        "Unigram, always": _unigram("always"),
        "Unigram, never": _unigram("never"),
    }
    return {
        kind: PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
        )
        for kind, tokenizer in kinds.items()
    }


@pytest.fixture(scope="session")
def make_notes() -> Callable[..., Notes]:
    def make(texts: list[str], splits: list[str] | None = None, fingerprint: str = "") -> Notes:
        rows = range(len(texts))
        table = pa.table(
            {
                "example_id": [f"e{row}" for row in rows],
                "group_id": pa.array([None for _ in rows], pa.string()),
                "split": splits or ["train"] * len(texts),
                "label": pa.array([row % 2 for row in rows], pa.int64()),
                "text": texts,
            }
        )
        return Notes(table, ("no", "yes"), fingerprint or "\n".join(texts), "test notes")

    return make


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data at ../shared/data")
    return folder
