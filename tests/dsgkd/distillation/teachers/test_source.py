"""A run that reads its teacher's states from a store is the run with the live teacher."""

from dataclasses import dataclass, replace

import pytest
import torch
from distilling import distiller_of, losses_of
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import BertConfig, BertForSequenceClassification

from dsgkd.alignment.batch import Pair
from dsgkd.data.sources import DataConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.teachers import source as teachers
from dsgkd.distillation.teachers.source import choose, readable
from dsgkd.errors import InputError
from dsgkd.models import hub
from dsgkd.models.fingerprint import fingerprint
from dsgkd.models.taps import WordStates
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import paper_preset
from dsgkd.training.loop import BEST, LAST, train
from dsgkd.training.opening import open_run
from dsgkd.training.prefetch import ahead

pytestmark = pytest.mark.slow

TERMS = {"alpha": 2.0, "beta": 1.0, "mapping": "uniform+emb"}


@pytest.fixture
def forget():
    """Let no open store or loaded model outlive the test."""
    teachers.open_states.cache_clear()
    teachers.live_model.cache_clear()
    fingerprint.cache_clear()
    yield
    teachers.open_states.cache_clear()


@pytest.mark.parametrize("form", ["standard", "paper", "shuffled", "two teachers"])
def test_stored_and_live_teacher_train_the_same_student(form, make_config, cache, tmp_path):
    found = {}
    for kind in ("live", "stored"):
        config = make_config("still-student", "teacher", TERMS | {"teacher_store": kind})
        if form == "paper":
            config = make_config("long-student", "long-teacher", {"teacher_store": kind})
            config = paper_preset(config)
            config = replace(config, optimisation=replace(config.optimisation, epochs=2))
        if form == "two teachers":
            terms = TERMS | {"teacher_store": kind, "mapping": "uniform;last-1+emb"}
            config = make_config("still-student", "teacher+long-teacher", terms)
        if form == "shuffled":
            config = replace(config, distillation=replace(config.distillation, shuffled=True))
        run = open_run(config, cache, StoreConfig(str(tmp_path / "store")))
        results = list(train(run, Checkpoints(tmp_path / kind)))
        weights = Checkpoints(tmp_path / kind).load(BEST)["student"]
        found[kind] = ([result.weighted for result in results], weights)
        assert {t.store for t in run.teachers} == {"off" if kind == "live" else "miss"}
        assert len(run.teachers) == 1 + (form == "two teachers")
    for live, stored in zip(found["live"][0], found["stored"][0], strict=True):
        assert stored == pytest.approx(live, rel=1e-3)
    for name, weight in found["live"][1].items():
        torch.testing.assert_close(found["stored"][1][name], weight, rtol=0.02, atol=2e-3)


def test_the_second_run_finds_the_store_and_needs_no_model(
    make_config, cache, tmp_path, monkeypatch, forget
):
    store = StoreConfig(str(tmp_path / "store"))
    uses = []
    loaded = []
    load = hub.load_model
    monkeypatch.setattr(teachers, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    wide = {"mapping": "uniform+emb", "beta": 1.0, "max_transfer_words": 32}
    narrow = {"mapping": "last-1", "alpha": 7.0, "max_transfer_words": 2}
    for distillation in (wide, narrow, wide):
        config = make_config("student", "teacher", distillation | {"teacher_store": "stored"})
        teachers.open_states.cache_clear()
        uses.append(open_run(config, cache, store).teachers[0].store)
    assert uses == ["miss", "hit", "hit"]
    assert len(loaded) == 1


def test_other_weights_precision_or_seeds_have_other_stores(make_config, cache, tmp_path, forget):
    store = StoreConfig(str(tmp_path / "store"))

    def folders(**changes):
        config = make_config("student", "teacher", {"teacher_store": "stored"})
        weights = changes.pop("teacher_weights", "pretrained")
        config = replace(
            config, distillation=replace(config.distillation, teacher_weights=weights), **changes
        )
        open_run(config, cache, store)
        return {path.name for path in (tmp_path / "store").iterdir()}

    first = folders()
    assert len(first) == 1
    assert folders(seed=3) == first
    assert len(folders(teacher_weights="random", seed=3)) == 2
    assert len(folders(teacher_weights="random", seed=4)) == 3
    bf16 = replace(make_config().optimisation, precision="bf16")
    assert len(folders(optimisation=bf16)) == 4


def test_weights_that_change_in_place_are_another_teacher(zoo, tmp_path, forget):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    before = fingerprint(str(tmp_path))
    assert fingerprint(str(tmp_path), random_weights_seed=1) != before
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1
    model.save_pretrained(tmp_path)
    fingerprint.cache_clear()
    assert fingerprint(str(tmp_path)) != before
    (tmp_path / "model.safetensors").unlink()
    fingerprint.cache_clear()
    with pytest.raises(InputError, match="no file of weights"):
        fingerprint(str(tmp_path))


@pytest.mark.parametrize(
    ("wanted", "size", "is_short", "kept", "why"),
    [
        ("auto", 3e9, False, True, "stored teacher: 3 GB, read once and kept"),
        ("auto", 3e9, True, False, "live teacher: the run is short"),
        ("auto", 5e9, False, False, "live teacher: storing it would take 5 GB, the budget is 4 GB"),
        ("live", 1, False, False, "live teacher, as asked for"),
        ("stored", 1, True, True, "stored teacher, as asked for"),
    ],
)
def test_the_choice_is_automatic_and_says_why(wanted, size, is_short, kept, why):
    found, said = choose(wanted, int(size), StoreConfig(budget_gb=4), is_short)
    assert found == kept
    assert said.startswith(why)


def test_a_store_that_does_not_fit_its_budget_is_refused_with_both_sizes(make_config, cache):
    config = make_config("student", "teacher", {"teacher_store": "stored"})
    with pytest.raises(InputError, match=r"needs 6.* kB, budget 5 kB: keep fewer layers"):
        open_run(config, cache, StoreConfig(budget_gb=5e-6))
    assert readable(3_140_000_000) == "3.14 GB"
    assert readable(12) == "12 bytes"


def test_notes_without_a_word_to_transfer_need_no_store(make_config, cache, tmp_path):
    path = tmp_path / "notes.csv"
    splits = ["train"] * 8 + ["validation"] * 4 + ["test"] * 4
    rows = [
        f"{split},환아 {'중증' if n % 2 else '경증'} {n},{n % 2}" for n, split in enumerate(splits)
    ]
    path.write_text("\n".join(["split,text,label", *rows]), encoding="utf-8")
    config = make_config("student", "teacher", TERMS | {"teacher_store": "stored"})
    run = open_run(replace(config, data=DataConfig(path=str(path))), cache)
    assert run.teachers[0].why == "live teacher: no text has a word to transfer"
    results = train(run, Checkpoints(tmp_path / "run"))
    assert [result.weighted["hidden"] for result in results] == [0, 0, 0]


def test_a_damaged_store_is_mended_in_the_middle_of_a_run(make_config, cache, tmp_path, forget):
    store = StoreConfig(str(tmp_path / "store"))
    config = make_config("still-student", "teacher", TERMS | {"teacher_store": "stored"})

    def losses(name, run):
        return [result.weighted for result in train(run, Checkpoints(tmp_path / name))]

    expected = losses("whole", open_run(config, cache, store))
    (shard,) = (tmp_path / "store").glob("*/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-200] ^= 0x40
    shard.unlink()
    shard.write_bytes(content)
    teachers.open_states.cache_clear()

    run = open_run(config, cache, store)
    assert run.teachers[0].store == "hit"  # nothing shows until that text is read
    assert losses("mended", run) == expected
    assert shard.read_bytes() != bytes(content)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_resumed_run_with_a_stored_teacher_is_the_same_to_the_bit(
    shuffled, make_config, cache, tmp_path
):
    terms = TERMS | {"teacher_store": "stored", "shuffled": shuffled}
    config = make_config("student", "teacher", terms)
    whole, cut = (Checkpoints(tmp_path / name) for name in ("whole", "cut"))
    list(train(open_run(config, cache), whole))
    first = train(open_run(config, cache), cut)
    next(first)
    first.close()
    list(train(open_run(config, cache), cut))
    one, two = (checkpoints.load(LAST)["distiller"] for checkpoints in (whole, cut))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@dataclass(frozen=True)
class _Says:
    states: WordStates

    def word_states(self, pair: Pair) -> WordStates:
        return self.states


@pytest.mark.parametrize("attention", ["dsgkd_plain", "dsgkd_fused"])
def test_a_step_never_waits_for_the_device(attention, make_batch):
    """Fake tensors have no values: whatever asks the device for one raises an error."""
    batch = make_batch((3, 1, 2, 0))
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    )
    config._attn_implementation = attention
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        student, teacher = (
            BertForSequenceClassification(config),
            BertForSequenceClassification(config),
        )
        both = DistillationConfig("t", alpha=1.0, beta=1.0)
        distiller, _ = distiller_of(both, student, teacher)
        on_device = batch.each(fake.from_tensor)
        (pair,) = on_device.pairs
        words = pair.mask.shape[1]
        said = WordStates(
            {layer: torch.randn(4, words, 32) for layer in (1, 2)},
            {layer: torch.rand(4, 4, words, words) for layer in (1, 2)},
        )
        with pytest.raises(Exception, match=r"data-dependent|DataDependent|aten._local_scalar"):
            int(pair.mask.sum())
        losses = losses_of(distiller, [_Says(said)], on_device)
        assert list(losses) == ["ce", "hidden", "attention"]
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(distiller.parameters(), 1.0)


def test_items_that_are_fetched_ahead_come_in_order_and_errors_in_their_turn():
    assert list(ahead(range(20), 3)) == list(range(20))

    def failing():
        yield 1
        raise ValueError("here")

    items = ahead(failing(), 3)
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)

    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    items = ahead(endless(), 2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.close()  # ends the thread, or this test would not end
    assert len(taken) < 10
