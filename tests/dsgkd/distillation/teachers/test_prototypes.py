"""A teacher that gives a word its mean state over sentences of its own language."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import MILD, URGENT

from dsgkd.distillation.teachers.prototypes import PrototypeTeacher
from dsgkd.distillation.teachers.source import live_model
from dsgkd.errors import InputError
from dsgkd.models.hub import load_tokenizer
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.loop import train
from dsgkd.training.opening import open_run, teacher_sources

pytestmark = pytest.mark.slow

SENTENCES = ["cough rash", "rash sepsis cough rhinitis", "sepsis", "cough", "sneezing cough sepsis"]


@pytest.fixture
def config(make_config, tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return make_config(
        "still-student",
        "teacher",
        {
            "teacher_states": "prototypes",
            "prototype_corpus": str(tmp_path / "corpus.txt"),
            "mapping": "last-1",
        },
    )


def words_of(run) -> dict[str, torch.Tensor]:
    """Each word's prototype, as batches give it; checks that it is the same in every text."""
    tokenizer, layer = load_tokenizer_of(run), run.teachers[0].provider.hidden
    (layer,) = layer
    collate, texts, found = run.collator(), run.texts, {}
    for first in range(0, len(texts), 7):
        rows = np.arange(first, min(first + 7, len(texts)))
        (pair,) = collate(texts, rows).pairs
        assert pair.teacher is None  # no text is read
        states = run.teachers[0].provider.word_states(pair).hidden[layer]
        spans = texts.alignments[0].words.take(rows).padded(pair.mask.shape[1], 0)
        for row, place in pair.mask.nonzero().tolist():
            start, end = spans[row, place, 2:4].tolist()
            ids = texts.teachers[0].tokens.take(rows[[row]]).flat()[start:end]
            state = found.setdefault(tokenizer.decode(ids).replace(" ##", ""), states[row, place])
            torch.testing.assert_close(states[row, place], state, rtol=0, atol=0)
    return found


def load_tokenizer_of(run):
    return load_tokenizer(run.config.distillation.teacher)


def read_alone(run, sentence: str, word: str) -> torch.Tensor:
    """The teacher's state of a word in one sentence, token by token."""
    (source,) = teacher_sources(run.config, None, run.device, run.autocast)
    tokenizer = load_tokenizer_of(run)
    encoded = tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
    start = sentence.index(word)
    inside = [
        start <= a < b <= start + len(word) for a, b in encoded.pop("offset_mapping")[0].tolist()
    ]
    (layer,) = run.teachers[0].provider.hidden
    with torch.no_grad():
        states = live_model(source)(**encoded, output_hidden_states=True).hidden_states[layer]
    return states[0, inside].mean(0)


def test_a_prototype_is_the_mean_over_the_corpus_or_else_over_carriers(config, cache):
    run = open_run(config, cache)
    found = words_of(run)
    assert {*URGENT, *MILD} <= set(found)
    there = [read_alone(run, text, "sepsis") for text in SENTENCES if "sepsis" in text]
    torch.testing.assert_close(found["sepsis"], torch.stack(there).mean(0), rtol=1e-4, atol=1e-5)
    carriers = [text.format(term="seizure") for text in config.distillation.carriers]
    mean = torch.stack([read_alone(run, text, "seizure") for text in carriers]).mean(0)
    torch.testing.assert_close(found["seizure"], mean, rtol=1e-4, atol=1e-5)


def test_at_most_so_many_sentences_are_read(config, cache):
    one = replace(config, distillation=replace(config.distillation, prototype_sentences=1))
    run = open_run(one, cache)
    found = words_of(run)["sepsis"]
    options = [read_alone(run, text, "sepsis") for text in SENTENCES if "sepsis" in text]
    assert sum(torch.allclose(found, option, rtol=1e-4, atol=1e-5) for option in options) == 1


def test_prototypes_are_stored_by_what_was_read(config, cache, tmp_path, monkeypatch):
    fresh = tmp_path / "cache"
    first = words_of(open_run(config, fresh))
    files = list((fresh / "prototypes").iterdir())
    assert len(files) == 1
    monkeypatch.setattr("dsgkd.distillation.teachers.prototypes._means", None)
    again = words_of(open_run(config, fresh))
    assert all(torch.equal(again[word], state) for word, state in first.items())
    with pytest.raises(TypeError):  # another reading is another file
        open_run(
            replace(config, distillation=replace(config.distillation, carriers=("{term}",))), fresh
        )


def test_a_run_learns_from_prototypes_and_its_shuffled_control_has_others(config, cache, tmp_path):
    run = open_run(config, cache)
    *_, last = train(run, Checkpoints(tmp_path / "run"))
    assert last.raw["hidden"] > 0
    other = replace(config, distillation=replace(config.distillation, shuffled=True))
    *_, shuffled = train(open_run(other, cache), Checkpoints(tmp_path / "shuffled"))
    assert shuffled.raw["hidden"] != last.raw["hidden"]


def test_a_word_without_a_prototype_is_an_error_and_not_another_words_state(config, cache):
    run = open_run(config, cache)
    whole = run.teachers[0].provider
    lacking = PrototypeTeacher(whole.names[:1], {k: v[:1] for k, v in whole.hidden.items()})
    (pair,) = run.collator()(run.texts, np.arange(8)).pairs
    with pytest.raises(KeyError, match="without a prototype"):
        lacking.word_states(pair)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 1.0}, "teacher states: attention belongs to a text"),
        ({"prototype_corpus": "own"}, "prototype corpus: .* was not pre-trained here"),
        ({"prototype_corpus": "/nowhere"}, "/nowhere: no such file or folder"),
        ({"carriers": ("{term} " + "cough " * 80,)}, r"carriers: \d+ words do not fit"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(changes, message, config, cache):
    other = replace(config, distillation=replace(config.distillation, **changes))
    with pytest.raises(InputError, match=f"^{message}[^\n]*$"):
        open_run(other, cache)


def test_a_carrier_sentence_has_a_place_for_the_word(config):
    for carriers in ((), ("no place",)):
        with pytest.raises(InputError, match=r"^carriers: "):
            replace(config.distillation, carriers=carriers)
