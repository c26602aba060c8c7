import hashlib
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from dsgkd.alignment.words import WordRule, find_words
from dsgkd.data import _technical_vocabulary as technical_words
from dsgkd.data import _vocabulary as words
from dsgkd.data._domains import CLINICAL, TECHNICAL, stems
from dsgkd.data.world import (
    WorldConfig,
    english_corpus,
    familiarity,
    glossary,
    korean_corpus,
    labelled_notes,
    technical_corpus,
    terms,
    unlabelled_notes,
)
from dsgkd.errors import InputError

WORLD = WorldConfig()
SMALL = WorldConfig(
    terms=200,
    conditions=60,
    english_sentences=2500,
    korean_sentences=500,
    train_notes=60,
    validation_notes=40,
    test_notes=50,
)
CLINICAL_TABLES, TECHNICAL_TABLES = (
    (domain.plain, domain.manners, domain.roots, domain.suffixes)
    for domain in (CLINICAL, TECHNICAL)
)
DIGEST = """
import hashlib
from dsgkd.data.world import *
world = WorldConfig(terms=200, conditions=60, english_sentences=2500, korean_sentences=500,
                    train_notes=60, validation_notes=40, test_notes=50)
made = [english_corpus(world), korean_corpus(world), labelled_notes(world).to_pylist()]
print(hashlib.sha256(repr(made).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def notes() -> pa.Table:
    return labelled_notes(WORLD)


@pytest.fixture(scope="module")
def english() -> list[str]:
    return english_corpus(WORLD)


@pytest.fixture(scope="module")
def korean() -> list[str]:
    return korean_corpus(WORLD)


@pytest.fixture(scope="module")
def severity() -> dict[str, float]:
    table = terms(WORLD)
    return dict(zip(table["term"].to_pylist(), table["severity"].to_pylist(), strict=True))


def _note_severity(notes: pa.Table, severity: dict[str, float]) -> np.ndarray:
    found = [
        [severity[word] for word in re.findall("[a-z]+", text) if word in severity]
        for text in notes["text"].to_pylist()
    ]
    return np.array([np.mean(values) + np.max(values) if values else 0.0 for values in found])


def _poorly(notes: pa.Table) -> np.ndarray:
    """How often a note says in words that a vital sign is bad, less how often that it is good."""
    return np.array(
        [
            len(re.findall("고열|빈맥|빈호흡|저하", text)) - len(re.findall("정상|편안함", text))
            for text in notes["text"].to_pylist()
        ]
    )


def test_the_same_world_is_made_in_another_process() -> None:
    made = [english_corpus(SMALL), korean_corpus(SMALL), labelled_notes(SMALL).to_pylist()]
    here = hashlib.sha256(repr(made).encode()).hexdigest()
    there = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_the_texts_of_a_world_stay_what_they_were() -> None:
    made = [english_corpus(SMALL), korean_corpus(SMALL), labelled_notes(SMALL).to_pylist()]
    digests = [hashlib.sha256(repr(texts).encode()).hexdigest()[:16] for texts in made]
    assert digests == ["8bff2fc856690568", "1358fe44be8ff160", "1b94325dc1f68bdd"]


def test_unlabelled_notes_are_others_of_the_same_kind(notes: pa.Table) -> None:
    made = unlabelled_notes(WORLD)
    assert len(made) == len(set(made)) == WORLD.unlabelled
    assert not set(made) & set(notes["text"].to_pylist())
    wordless = [not re.search("[A-Za-z]", text) for text in made]
    assert np.mean(wordless) == pytest.approx(WORLD.wordless_share, abs=0.02)
    known, words = set(glossary(WORLD)), Counter(re.findall("[a-z]+", "\n".join(made)))
    assert known <= words.keys()
    assert unlabelled_notes(replace(WORLD, unlabelled=0)) == []
    assert unlabelled_notes(replace(WORLD, knowledge=0.0)) == made


def test_the_glossary_is_the_terms(severity: dict[str, float]) -> None:
    assert glossary(WORLD) == list(severity)


@pytest.mark.parametrize("world", [WORLD, replace(WORLD, seed=21)], ids=["default", "another"])
def test_no_term_of_a_world_is_in_its_technical_corpus_and_every_letter_is(
    world: WorldConfig,
) -> None:
    known = glossary(world)
    read = set(re.findall("[a-z]+", "\n".join(technical_corpus(world))))
    assert not read & set(known)
    # Or a tokenizer that is trained on it would not know the term.
    assert {term[0] for term in known} <= {word[0] for word in read}
    assert set("".join(term[1:] for term in known)) <= set("".join(word[1:] for word in read))


def test_the_technical_corpus_has_no_cue_of_severity() -> None:
    tables = (words.ADJECTIVES, words.TRIAGE, words.DISPOSITIONS, words.SIGNS, words.PLANS)
    phrases = [phrase for table in tables for level in table for phrase in level]
    empty = {"a", "after", "and", "for", "in", "on", "the", "to"}
    cues = set(re.findall("[a-z]+", "\n".join(phrases))) - empty
    read = set(re.findall("[a-z]+", "\n".join(technical_corpus(WORLD))))
    assert len(cues) > 100
    assert not read & cues


def test_the_technical_corpus_is_made_as_the_clinical_one_is(english: list[str]) -> None:
    for ours, theirs in zip(TECHNICAL_TABLES, CLINICAL_TABLES, strict=True):
        assert len(ours) == len(theirs)
        assert not set(ours) & set(theirs) - {""}
    assert not set(stems(TECHNICAL, 150)) & set(stems(CLINICAL, 150))
    technical = technical_corpus(WORLD)
    assert len(technical) == len(english)
    ours, theirs = (Counter(" ".join(corpus).split()) for corpus in (technical, english))
    assert ours.total() == pytest.approx(theirs.total(), rel=0.05)
    assert len(ours) == pytest.approx(len(theirs), rel=0.05)


def test_a_technical_term_stands_among_cues_of_its_grade() -> None:
    found = Counter(
        (term, level)
        for text in technical_corpus(WORLD)
        for term in ("paperclip", "reactor")
        for level in (0, 4)
        if re.search(rf"\b{term}\b", text)
        and any(f" {phrase} " in f" {text} " for phrase in technical_words.TASKS[level])
    )
    assert found["reactor", 4] > 10 * found["reactor", 0]
    assert found["paperclip", 0] > 10 * found["paperclip", 4]


def test_another_seed_makes_another_world() -> None:
    other = replace(SMALL, seed=18)
    assert english_corpus(other) != english_corpus(SMALL)
    assert korean_corpus(other) != korean_corpus(SMALL)
    assert labelled_notes(other)["text"] != labelled_notes(SMALL)["text"]


def test_worlds_of_one_language_have_the_same_corpora() -> None:
    """Their names are the names of models, so whatever changes a corpus must be in the language."""
    other = replace(
        SMALL,
        knowledge=0.0,
        vitals=0.1,
        positive_share=0.2,
        wordless_share=0.3,
        train_notes=9,
        validation_notes=9,
        test_notes=9,
        unlabelled=9,
    )
    assert other.language == SMALL.language
    for corpus in (english_corpus, korean_corpus, technical_corpus):
        assert corpus(other) == corpus(SMALL.language) == corpus(SMALL)


def test_the_splits_have_the_sizes_asked_for_and_share_no_patient(notes: pa.Table) -> None:
    sizes = Counter(notes["split"].to_pylist())
    assert sizes == {"train": 900, "validation": 400, "test": 800}
    pairs = set(zip(notes["patient"].to_pylist(), notes["split"].to_pylist(), strict=True))
    patients = len(pc.unique(notes["patient"]))
    assert len(pairs) == patients
    assert patients < 0.9 * len(notes)  # some patients have several notes


def test_the_share_of_emergencies_is_the_configured_one(notes: pa.Table) -> None:
    assert np.mean(notes["label"].to_numpy()) == pytest.approx(WORLD.positive_share, abs=0.03)
    rare = labelled_notes(replace(WORLD, positive_share=0.1))
    assert np.mean(rare["label"].to_numpy()) == pytest.approx(0.1, abs=0.03)
    named = {1: "emergency", 0: "not emergency"}
    assert notes["label_name"].to_pylist() == [named[i] for i in notes["label"].to_pylist()]


def test_knowledge_changes_labels_but_no_text(notes: pa.Table) -> None:
    without = labelled_notes(replace(WORLD, knowledge=0.0))
    kept = ["text", "split", "patient"]
    assert without.select(kept) == notes.select(kept)
    assert without["label"] != notes["label"]


def test_the_label_follows_the_terms_only_as_far_as_knowledge_goes(
    notes: pa.Table, severity: dict[str, float]
) -> None:
    score = _note_severity(notes, severity)
    without = labelled_notes(replace(WORLD, knowledge=0.0))
    assert roc_auc_score(notes["label"].to_numpy(), score) > 0.78
    assert roc_auc_score(without["label"].to_numpy(), score) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("knowledge", "least"), [(0.0, 0.7), (WORLD.knowledge, 0.57)])
def test_the_label_follows_the_vital_signs_with_and_without_knowledge(
    knowledge: float, least: float
) -> None:
    notes = labelled_notes(replace(WORLD, knowledge=knowledge))
    assert roc_auc_score(notes["label"].to_numpy(), _poorly(notes)) > least


def test_knowing_the_severities_beats_learning_words_from_the_training_notes(
    notes: pa.Table, severity: dict[str, float]
) -> None:
    train = np.array(notes["split"].to_pylist()) == "train"
    test = np.array(notes["split"].to_pylist()) == "test"
    texts, labels = np.array(notes["text"].to_pylist()), notes["label"].to_numpy()
    vectors = TfidfVectorizer().fit(texts[train])
    learnt = LogisticRegression().fit(vectors.transform(texts[train]), labels[train])
    plain = roc_auc_score(labels[test], learnt.decision_function(vectors.transform(texts[test])))
    known = roc_auc_score(labels[test], _note_severity(notes, severity)[test])
    assert known > plain + 0.05


def test_a_fifth_or_more_of_the_test_terms_are_rare_or_absent_in_the_training_notes() -> None:
    shares = familiarity(WORLD)
    assert sum(shares.values()) == pytest.approx(1)
    assert 0.02 < shares["0"] < 0.1
    assert 0.2 < shares["0"] + shares["1-2"] < 0.35


def test_measurements_stand_in_some_notes_and_words_in_the_others(notes: pa.Table) -> None:
    texts = notes["text"].to_pylist()
    measured = np.array([bool(re.search(r"BT \d\d\.\d, HR \d+", text)) for text in texts])
    said = np.array([bool(re.search("체온|열|맥|호흡|산소포화도", text)) for text in texts])
    assert np.mean(measured) == pytest.approx(0.25 * (1 - WORLD.wordless_share), abs=0.03)
    assert np.all(measured | said)


def test_the_terms_of_a_condition_share_its_stem_and_its_severity() -> None:
    table = terms(WORLD).to_pandas()
    invented = table[table.condition < WORLD.conditions]
    heart = invented[invented.term.str.contains("cardi")]
    assert len(heart) > 1
    assert heart.condition.nunique() == 1
    assert (invented.groupby("condition").severity.nunique() == 1).all()
    assert invented.condition.nunique() == WORLD.conditions


def test_familiarity_counts_occurrences_in_the_training_notes() -> None:
    rows = [
        ("cough, cough, cough fever", "train"),
        ("croup", "validation"),
        ("cough으로 fever croup x-ray", "test"),
        ("croup", "test"),
    ]
    texts, splits = zip(*rows, strict=True)
    table = pa.table({"text": texts, "split": splits})
    assert familiarity(WORLD, table) == {"0": 0.5, "1-2": 0.25, "3+": 0.25}


def test_particles_are_attached_to_english_words_and_fit_them(notes: pa.Table) -> None:
    text = "\n".join(notes["text"].to_pylist())
    assert "vomiting으로" in text
    assert "fever로" in text
    assert not re.search(r"fever으로|vomiting로 |fever이 |[가-힣]을를", text)
    assert re.search(r"[a-z],", text)
    assert "V/S" in text
    assert "x-ray" in text


def test_the_papers_word_rule_loses_terms_that_the_script_rule_keeps(
    notes: pa.Table, severity: dict[str, float]
) -> None:
    found = {
        kind: sum(
            text[start:end] in severity
            for text in notes["text"].to_pylist()
            for start, end in find_words(text, WordRule(kind))
        )
        for kind in ("paper", "script")
    }
    assert 0.3 * found["script"] < found["paper"] < 0.8 * found["script"]


def test_some_notes_have_no_latin_letter(notes: pa.Table) -> None:
    wordless = [not re.search("[A-Za-z]", text) for text in notes["text"].to_pylist()]
    assert np.mean(wordless) == pytest.approx(WORLD.wordless_share, abs=0.02)


def test_every_term_has_its_mentions_in_the_english_corpus(
    english: list[str], severity: dict[str, float]
) -> None:
    counts = Counter(word for line in english for word in set(line.split()))
    assert min(counts[term] for term in severity) >= WORLD.mentions
    assert len(english) == WORLD.english_sentences


def test_english_cues_follow_the_severity_of_the_terms(
    english: list[str], severity: dict[str, float]
) -> None:
    def mean_severity(cue: str) -> float:
        lines = [line.split() for line in english if cue in line]
        return float(np.mean([severity[w] for line in lines for w in line if w in severity]))

    assert mean_severity("rushed to resuscitation") > 1
    assert mean_severity("kept for observation") == pytest.approx(0, abs=0.3)
    assert mean_severity("reassured and sent home") < -1


def test_the_korean_corpus_names_no_term_but_knows_every_character(
    korean: list[str], notes: pa.Table, severity: dict[str, float]
) -> None:
    text = "\n".join(korean)
    assert not severity.keys() & set(re.findall("[a-z]+", text))
    assert set("".join(notes["text"].to_pylist())) <= set(text)
    assert len(set(re.findall("[가-힣]+", text))) > 2000


def test_the_parts_of_a_term_tell_its_severity_as_far_as_morphology_goes() -> None:
    def told(morphology: float) -> float:
        table = terms(replace(WORLD, morphology=morphology)).to_pandas()
        grave = table[table.term.str.contains("^necro|^fulmino|rrhagia$|onecrosis$")]
        light = table[table.term.str.contains("^pseudo|^micro|odynia$|algia$")]
        return float(grave.severity.mean() - light.severity.mean())

    assert told(0.7) > 0.7
    assert told(0.0) == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [("terms", 10), ("english_sentences", 100)],
)
def test_an_impossible_world_is_refused_in_one_line(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name) as error:
        replace(WORLD, **{name: value})
    assert "\n" not in str(error.value)
