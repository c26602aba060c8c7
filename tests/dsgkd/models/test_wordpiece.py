"""Is a tokenizer the same every time, and does it cut where words of two scripts meet?"""

from dsgkd.models.wordpiece import train_tokenizer


def test_the_same_texts_give_the_same_tokenizer():
    # Pieces and their numbers depended on the order of a hash map, which is new each time.
    words = ("가나다라", "나다라마", "다라마바", "라마바사")
    texts = [f"환자는 {word} 상태로 vomiting으로 내원" for word in words] * 5
    found = [train_tokenizer(texts, 300) for _ in range(4)]
    assert len({tuple(sorted(tokenizer.get_vocab().items())) for tokenizer in found}) == 1
    assert found[0].all_special_tokens == ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
    assert found[0].tokenize("내원가##나")[-3:] == ["[UNK]", "[UNK]", "나"]  # and not a piece


def test_the_tokenizer_cuts_attached_particles_off():
    tokenizer = train_tokenizer(["vomiting 으로 내원", "fever 가 있어", "vomiting fever"] * 5, 200)
    assert tokenizer.is_fast
    assert tokenizer.tokenize("vomiting으로 fever가") == ["vomiting", "으로", "fever", "가"]
    assert tokenizer.tokenize("Fever") != tokenizer.tokenize("fever")
