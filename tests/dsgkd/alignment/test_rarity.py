"""Texts are told apart by how often training saw their rarest foreign word."""

from dsgkd.alignment.rarity import rarest_words
from dsgkd.alignment.words import WordRule


def test_the_rarest_word_decides_whatever_its_case() -> None:
    training = ["환아 fever 있음", "Fever와 cough", "FEVER", "sepsis 의심"]
    texts = ["fever 환아", "fever 및 Cough", "cough와 ascites", "증상 없음", "sepsis"]
    found = rarest_words(training, texts, WordRule())
    assert found == ["3+", "1-2", "never", "none", "1-2"]
