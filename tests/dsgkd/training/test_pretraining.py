import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from dsgkd.alignment.batch import Collator
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.errors import InputError
from dsgkd.models.hub import load_tokenizer
from dsgkd.models.masked import load_masked, mask_tokens
from dsgkd.models.taps import run_model
from dsgkd.tasks.masked_lm import MaskedLanguageModel
from dsgkd.training import loop
from dsgkd.training.loop import LAST
from dsgkd.training.pretraining import pack, pretrain, word_vectors
from dsgkd.training.pretraining_config import PretrainingConfig, pretraining_key, spread

SMALL = PretrainingConfig(
    vocabulary=120, layers=1, width=64, length=32, tokens=80_000, lr=3e-3, held_out_share=0.3
)
BRIEF = replace(SMALL, tokens=4_000, checkpoint_seconds=1e-9)  # a checkpoint each step


def sentences(count: int, seed: int) -> list[str]:
    """Topics, each with words of its own, so that a neighbour tells about a masked word."""
    draw = random.Random(seed)
    topics = [
        [f"{a}{b}" for a in "ㄱㄴㄷ" for b in word] for word in ("가나다라", "마바사아", "자차카타")
    ]
    return [" ".join(draw.choices(draw.choice(topics), k=10)) for _ in range(count)]


CORPUS = sentences(1200, seed=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    lines = []
    return folder, pretrain(CORPUS, SMALL, folder, lines.append), lines


def test_the_held_out_loss_falls_below_that_of_guessing_by_frequency(trained):
    folder, report, _ = trained
    counts = np.bincount(pack(CORPUS, load_tokenizer(str(folder)), 32).ravel())
    shares = counts[5:] / counts[5:].sum()  # special tokens are never predicted
    shares = shares[shares > 0]
    entropy = -(shares * np.log(shares)).sum()
    assert report.loss < entropy - 0.3
    assert report.masked_accuracy > 1.5 * shares.max()


def test_the_report_lies_beside_the_model(trained):
    folder, report, lines = trained
    written = json.loads((folder / "pretraining.json").read_text())
    assert written["loss"] == report.loss
    assert report.texts == 1200
    assert report.steps == -(-SMALL.tokens // (16 * 32))
    assert report.tokens_per_second == pytest.approx(report.steps * 512 / report.seconds)
    assert not (folder / "checkpoints").exists()
    assert "1,200 texts" in lines[0]
    assert "held-out masked loss" in lines[-1]


def test_the_result_is_a_model_with_a_fast_tokenizer(trained):
    folder, *_ = trained
    tokenizer = load_tokenizer(str(folder))
    inputs = tokenizer(CORPUS[0], return_tensors="pt")
    assert inputs.input_ids[0, [0, -1]].tolist() == [
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    ]
    model = AutoModel.from_pretrained(folder)
    assert model(**inputs).last_hidden_state.shape[-1] == 64


class StopError(Exception):
    pass


def stop_at(monkeypatch, stop):
    """Die after so many checkpoints; return the steps of the run that they were written at."""
    save, steps = loop._State.save, []

    def save_and_stop(self, progress, is_best=False):
        save(self, progress, is_best)
        done = [result["step"] for result in progress.history][-1:] or [0]
        steps.append(done[0] + progress.step)
        if len(steps) == stop:
            raise StopError

    monkeypatch.setattr(loop._State, "save", save_and_stop)
    return steps


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_run_ends_as_if_it_had_not_been(stop, tmp_path, monkeypatch):
    whole = pretrain(CORPUS, BRIEF, tmp_path / "whole")
    assert whole.steps == 8
    steps = stop_at(monkeypatch, stop)
    with pytest.raises(StopError):
        pretrain(CORPUS, BRIEF, tmp_path / "parts")
    assert not (tmp_path / "parts" / "pretraining.json").exists()
    assert (tmp_path / "parts" / "checkpoints" / LAST).exists()
    parts = pretrain(CORPUS, BRIEF, tmp_path / "parts")

    assert sorted(steps) == steps, "begun again"
    assert set(steps) == set(range(1, 9))
    assert (parts.loss, parts.masked_accuracy) == (whole.loss, whole.masked_accuracy)
    one, two = (AutoModelForMaskedLM.from_pretrained(tmp_path / x) for x in ("whole", "parts"))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name)), name


@pytest.mark.parametrize("other", ["corpus", "configuration"])
def test_a_checkpoint_of_another_run_is_a_users_error(other, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1)
    with pytest.raises(StopError):
        pretrain(CORPUS, BRIEF, tmp_path)
    texts = [*CORPUS[:-1], CORPUS[0]] if other == "corpus" else CORPUS
    config = replace(BRIEF, seed=3) if other == "configuration" else BRIEF
    with pytest.raises(InputError, match="checkpoint of a run with other"):
        pretrain(texts, config, tmp_path)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_an_empty_corpus_is_a_users_error(texts, tmp_path):
    with pytest.raises(InputError, match="corpus: it holds no text"):
        pretrain(texts, BRIEF, tmp_path)


def test_too_little_text_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match="less than two sequences of 32 tokens: give more text"):
        pretrain(["ㄱ가 ㄴ나"], BRIEF, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    for config in (BRIEF, replace(BRIEF, checkpoint_seconds=1e9)):
        with pytest.raises(InputError, match="choose another --out"):
            pretrain(CORPUS, replace(config, tokens=600), tmp_path / "file")


def test_pretraining_can_go_on_from_a_model_on_other_text(trained, tmp_path):
    folder, first, _ = trained
    fresh = sentences(100, seed=5)
    config = replace(BRIEF, init=str(folder), lr=5e-5)
    report = pretrain(fresh, config, tmp_path)
    assert report.loss < first.loss + 0.5
    assert load_tokenizer(str(tmp_path)).get_vocab() == load_tokenizer(str(folder)).get_vocab()
    one, two = (AutoModelForMaskedLM.from_pretrained(x) for x in (folder, tmp_path))
    weights = [model.get_input_embeddings().weight for model in (one, two)]
    assert not torch.equal(*weights)
    assert (weights[0] - weights[1]).abs().max() < 0.01


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "modernbert", "deberta"])
def test_masked_language_models_of_other_families_go_on_too(
    family, make_model, word_tokenizer, tmp_path
):
    source = make_model(family, auto_class=AutoModelForMaskedLM)
    source.save_pretrained(tmp_path / "source")
    word_tokenizer.save_pretrained(tmp_path / "source")
    student = load_masked(str(tmp_path / "source"), "dsgkd_plain")
    task = MaskedLanguageModel().bound(word_tokenizer)
    ids = torch.randint(5, 60, (4, 32))
    texts = EncodedTexts.of_view(View.of_blocks(ids.numpy().astype(np.int32), 0))
    batch = task.prepare(Collator(32)(texts, np.arange(4)), texts, (1, 2, 3, 4))
    output = run_model(student, batch.student)
    loss = task.loss(output, batch, task.examples(batch))

    chosen, masked = batch.student.predicted, batch.student.input_ids
    assert 0 < chosen.sum() == len(batch.targets.tokens)
    assert torch.equal(ids[chosen], batch.targets.tokens)
    logits = source(input_ids=masked).logits[chosen]  # from all positions, not the chosen alone
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits, ids[chosen]), rtol=0.01, atol=0
    )
    kept = task.predict(output, batch).sum(0).tolist()
    assert kept[0] == pytest.approx(float(loss.detach() * chosen.sum()), rel=1e-4)
    assert 0 <= kept[1] <= kept[2] == chosen.sum()
    # The hook is out of the way again.
    assert student(input_ids=ids, attention_mask=None).logits.shape == (4, 32, 60)


def test_a_model_that_is_no_masked_language_model_is_a_users_error(
    make_model, word_tokenizer, tmp_path
):
    make_model().save_pretrained(tmp_path)
    word_tokenizer.mask_token = None
    word_tokenizer.save_pretrained(tmp_path)
    word_tokenizer.mask_token = "[MASK]"
    with pytest.raises(InputError, match=r"has no .*MASK"):
        pretrain(["w5 w6 w7"] * 99, replace(BRIEF, init=str(tmp_path)), tmp_path / "out")


def test_a_part_of_the_corpus_is_spread_evenly_over_it(tmp_path):
    texts = [f"{number}" for number in range(100)]
    assert spread(texts, 4) == ["0", "33", "66", "99"]
    assert spread(texts, 0) == spread(texts, 100) == texts


def hidden_of(ids, seed):
    generator = torch.Generator().manual_seed(seed)
    return mask_tokens(ids, 4, torch.arange(5), 60, 0.15, generator)


def test_masking_chooses_fifteen_percent_and_treats_them_as_bert_does():
    ids = torch.randint(5, 60, (400, 100), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1], ids[:, 50], ids[:, 51] = 2, 3, 1, 0
    masked, chosen = hidden_of(ids, 1)
    assert chosen.sum() == round(0.15 * int((ids >= 5).sum()))
    assert not chosen[ids < 5].any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    hidden, kept = masked[chosen] == 4, masked[chosen] == ids[chosen]
    assert hidden.float().mean() == pytest.approx(0.8 + 0.1 / 60, abs=0.015)
    assert kept.float().mean() == pytest.approx(0.1 + 0.1 / 60, abs=0.015)
    replaced = masked[chosen][~hidden & ~kept]
    assert len(replaced.unique()) > 50
    # Every text and every place has its share.
    assert chosen.float().mean(1).min() > 0
    assert chosen.float().mean(0)[1:50].min() > 0.08


def test_masking_follows_its_generator():
    ids = torch.randint(5, 60, (4, 32))

    def of(seed):
        return hidden_of(ids, seed)[0]

    assert torch.equal(of(0), of(0))
    assert not torch.equal(of(0), of(1))


def test_texts_are_packed_end_to_end(word_tokenizer):
    rows = pack(["w5 w6 w7", "w8", "w9 w10 w11 w12"], word_tokenizer, 5)
    assert rows.tolist() == [[2, 5, 6, 7, 3], [2, 8, 3, 9, 10]]


def test_word_vectors_have_the_scale_of_bert_and_put_like_words_together():
    draw = np.random.default_rng(0)
    # Words 5-9 stand among themselves, and 10-14.
    rows = [draw.integers(5, 10, 32) + 5 * (row % 2) for row in range(200)]
    vectors = word_vectors(np.array(rows, np.int32), 15, 64, seed=0)
    assert vectors.shape == (15, 64)
    assert vectors.dtype == np.float32
    assert vectors.std() == pytest.approx(0.02, rel=0.1)
    unit = vectors[5:] / np.linalg.norm(vectors[5:], axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[:5, :5].min() > likeness[:5, 5:].max()
    assert np.array_equal(vectors, word_vectors(np.array(rows, np.int32), 15, 64, seed=0))


def test_the_key_names_corpus_and_configuration():
    key = pretraining_key(CORPUS, SMALL)
    assert key == pretraining_key(list(CORPUS), replace(SMALL))
    assert key != pretraining_key(CORPUS[:-1], SMALL)
    assert key != pretraining_key(CORPUS, replace(SMALL, layers=2))
    assert key != pretraining_key(["".join(CORPUS[:2]), *CORPUS[2:]], SMALL)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 100}, "width: 100 does not fit: give a multiple of 64"),
        ({"layers": 0}, "layers: 0 is too small: give 1 or more"),
        ({"tokens": 0}, "tokens"),
        ({"length": 1}, "length: 1 is too small: give 8 to 512"),
    ],
)
def test_settings_that_make_no_sense_are_a_users_error(setting, message):
    with pytest.raises(InputError, match=message):
        PretrainingConfig(**setting)
