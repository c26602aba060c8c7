"""Type-consistent shuffling: the same other word in place of a word, in every text."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsgkd.alignment.substitution import Substitution, count_words
from dsgkd.alignment.view import encoded, knows
from dsgkd.alignment.words import WordRule, find_words
from dsgkd.data.sources import SEALED
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.training.opening import open_notes, open_table, open_transfer_set, transfer_sources

RULES = [WordRule(), WordRule("paper")]
texts = st.lists(
    st.lists(
        st.sampled_from(
            [
                "fever",
                "Fever",
                "V/S",
                "x-ray로",
                "환아cough",
                "SpO2",
                "37.5",
                "-",
                "a'b",
                "가",
                "",
                "é",
                "µg",
            ]
        )
        | st.text("aZé가-/ 1", max_size=6),
        max_size=8,
    ).map(" ".join),
    max_size=6,
)


def drawn(found: list[str], rule: WordRule, seed: int = 0) -> Substitution:
    counts = count_words(found, rule)
    return Substitution.drawn(counts, dict.fromkeys(counts, True), rule, seed)


def words_of(text: str, rule: WordRule) -> list[str]:
    return [text[start:end] for start, end in find_words(text, rule)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@settings(max_examples=100, deadline=None)
@given(texts=texts, others=texts)
def test_the_words_of_a_text_are_replaced_one_by_one_and_nothing_else_is(rule, texts, others):
    substitution = drawn(texts, rule)
    for text, read in zip(texts + others, substitution.applied(texts + others), strict=True):
        ours, theirs = words_of(text, rule), words_of(read, rule)
        assert len(ours) == len(theirs)
        rests = []
        for whole in (text, read):
            ends = [0, *(place for span in find_words(whole, rule) for place in span), len(whole)]
            rests.append([whole[a:b] for a, b in zip(ends[::2], ends[1::2])])
        assert rests[0] == rests[1]
        if text in texts:
            assert theirs == [substitution.partners[word] for word in ours]


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.text("abcdefg", min_size=1, max_size=3), unique=True, max_size=40),
    data=st.data(),
)
def test_types_of_a_kind_are_permuted_and_none_keeps_its_place(words, data):
    counts = {word: data.draw(st.integers(1, 9)) for word in words}
    kinds = {word: (data.draw(st.booleans()), True) for word in words}
    partners = Substitution.drawn(counts, kinds, WordRule(), data.draw(st.integers(0, 2**32)))
    assert sorted(partners.partners) == sorted(partners.partners.values()) == sorted(words)
    for word, partner in partners.partners.items():
        assert kinds[word] == kinds[partner]
        assert word != partner or list(kinds.values()).count(kinds[word]) == 1


def test_partners_are_about_as_frequent():
    counts = {f"w{'a' * n}": int(1000 * (n + 1) ** -0.6) for n in range(200)}
    partners = Substitution.drawn(counts, dict.fromkeys(counts), WordRule(), 0).partners
    read = Counter()
    for word, times in counts.items():
        read[partners[word]] += times
    moved = sum(abs(read[word] - counts[word]) for word in counts) / 2
    assert moved < 0.1 * sum(counts.values())


def test_another_seed_deals_otherwise_and_the_order_of_the_texts_does_not():
    written = [f"w{'a' * n} w{'b' * n}" for n in range(1, 30)]
    first = drawn(written, WordRule())
    assert drawn(written[::-1], WordRule()) == first
    assert drawn(written[::-1], WordRule()).partners == first.partners
    assert len({drawn(written, WordRule(), seed).fingerprint for seed in range(5)}) == 5


def test_words_that_differ_in_case_are_one_type_read_in_its_most_frequent_form():
    partners = drawn(["Fever fever fever COUGH"], WordRule()).partners
    assert partners == {"Fever": "COUGH", "fever": "COUGH", "COUGH": "fever"}


def test_a_word_that_only_held_out_texts_have_is_always_read_as_the_same_other():
    substitution = drawn(["fever cough croup"], WordRule())
    read = substitution.applied(["rash rash", "Rash", "colic으로"])
    assert read[0].split()[0] == read[0].split()[1] == read[1]
    assert set(read[:1][0].split()) | {read[2].removesuffix("으로")} <= {"fever", "cough", "croup"}
    unseen = [f"w{'a' * n}" for n in range(40)]
    assert len(set(substitution.applied(unseen))) == 3
    assert drawn(["FEVER cough"], WordRule()).applied(["fever"]) != ["FEVER"]


def test_without_words_nothing_is_replaced():
    assert drawn(["환아"], WordRule()).applied(["fever", ""]) == ["fever", ""]


def test_what_a_model_knows_is_what_it_reads_without_its_unknown_token(english):
    assert knows(english, ["fever", "qq", "vomiting"], WordRule()) == [True, False, True]


def test_other_partners_have_another_file(make_notes, tokenizers, tmp_path, samples):
    notes, tokenizer = make_notes(samples), tokenizers["wordpiece"]
    tables = []
    for substitution in (None, drawn(samples, WordRule()), drawn(samples, WordRule(), 1)):
        for _ in range(2):
            tables.append(
                encoded(notes, tokenizer, 64, WordRule(), tmp_path, True, substitution).to_pylist()
            )
    assert len(list((tmp_path / "encodings").iterdir())) == 3
    assert tables[0] == tables[1] != tables[2] == tables[3] != tables[4]


# ------------------------------------------------------------------------------------- of a run


@pytest.fixture
def shuffled(make_config):
    config = make_config(teacher="teacher", distillation={"shuffled": True})
    return replace(config, transfer=TransferConfig(unlabelled=("synthetic",), glossary="synthetic"))


def test_every_type_of_the_transfer_set_always_gets_the_tokens_of_one_other(
    shuffled, make_config, cache
):
    plain = replace(shuffled, distillation=replace(shuffled.distillation, shuffled=False))
    ours, real = (open_transfer_set(config, cache) for config in (shuffled, plain))
    texts = open_table(shuffled.data, shuffled.world, cache, shuffled.splits).only(("train",))
    parts = [texts.table, *(s.table for s in transfer_sources(shuffled, cache).values())]
    written = [text for part in parts for text in part["text"].to_pylist()]

    def tokens(encoded_texts) -> dict[str, set[tuple[int, ...]]]:
        found: dict[str, set[tuple[int, ...]]] = {}
        view = encoded_texts.teachers[0]
        for text, ids, spans in zip(written, view.tokens, view.found, strict=True):
            for word, (start, end) in zip(words_of(text, shuffled.words), spans, strict=True):
                if start >= 0:
                    found.setdefault(word.casefold(), set()).add(tuple(ids[start:end].tolist()))
        return found

    read, own = tokens(ours), tokens(real)
    assert len(read) >= 8
    assert read.keys() == own.keys()
    assert all(len(pieces) == 1 for pieces in read.values())
    assert not any(read[word] == own[word] for word in read)
    assert set(map(frozenset, read.values())) == set(map(frozenset, own.values()))
    # The same words as with the real teacher, but for those that are cut off.
    assert ours.alignments[0].words.lengths.sum() == pytest.approx(
        real.alignments[0].words.lengths.sum(), rel=0.02
    )
    assert np.array_equal(ours.student.tokens.flat(), real.student.tokens.flat())


def test_held_out_texts_and_the_mix_decide_nothing(shuffled, cache):
    closed = replace(shuffled, splits=SEALED)
    mixed = replace(shuffled, transfer=replace(shuffled.transfer, mix="glossary=3"))
    keys = [open_transfer_set(run, cache).teachers[0].keys for run in (shuffled, closed, mixed)]
    assert np.array_equal(keys[0], keys[1])
    assert np.array_equal(keys[0], keys[2])
    other = replace(shuffled, seed=shuffled.seed + 1)
    assert not np.array_equal(open_transfer_set(other, cache).teachers[0].keys, keys[0])


def test_all_splits_and_sources_are_read_with_the_same_partners(shuffled, cache):
    labelled = open_notes(shuffled, cache)
    joined = open_transfer_set(shuffled, cache)
    assert set(labelled.split("train").teachers[0].keys) <= set(joined.teachers[0].keys)


def test_with_two_teachers_each_reads_other_words(make_config, cache):
    both = make_config(teacher="teacher+long-teacher", distillation={"shuffled": True})
    alone = make_config(teacher="teacher", distillation={"shuffled": True})
    one, two = open_notes(alone, cache), open_notes(both, cache)
    # So a study can store the states of each teacher by itself.
    assert np.array_equal(one.teachers[0].keys, two.teachers[0].keys)
