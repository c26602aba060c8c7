"""Fixtures of the texts and tokenizers that these tests read."""

import pytest
from text_fixtures import *  # noqa: F403
from transformers import BertTokenizer

SMALL_VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", "fever", "vomit", "##ing"),
    *("##vomit", "환", "##아", "으", "##로", "##으"),
]


def bert(*without: str) -> BertTokenizer:
    """A WordPiece of a few tokens, in which some are missing."""
    kept = [token for token in SMALL_VOCABULARY if token not in without]
    vocab = {token: number for number, token in enumerate(kept)}
    return BertTokenizer(vocab=vocab, do_lower_case=True, strip_accents=False)


@pytest.fixture(scope="module")
def english() -> BertTokenizer:
    """Knows Korean characters at the start of a word only, as English models mostly do."""
    return bert("##아", "##로", "##으")


@pytest.fixture(scope="module")
def korean() -> BertTokenizer:
    return bert()
