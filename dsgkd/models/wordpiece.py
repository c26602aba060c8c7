"""Training of a cased WordPiece tokenizer, which is the same in every process."""

from collections.abc import Sequence

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a cased WordPiece tokenizer, as BERT's, on texts; the same one every time."""
    draft = _wordpiece()
    # The trainer numbers "##" pieces as it meets them, in the order of a hash map that is another
    # one in every process, and breaks ties by number. So they are numbered here.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *_continuing(texts, draft)],
        min_frequency=2,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    tokenizer = _wordpiece(draft.get_vocab())  # in which those pieces are nothing special
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


def _wordpiece(vocabulary: dict[str, int] | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    # Cut where the script changes, or a word with a particle attached ("vomiting으로") would be
    # one unknown token to a model that knows the word but not the particle.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.UnicodeScripts(), pre_tokenizers.BertPreTokenizer()]
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _continuing(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Return the pieces of one character that stand within words, in order."""
    characters: set[str] = set()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            characters.update(word[1:])
    return [f"##{character}" for character in sorted(characters)]
