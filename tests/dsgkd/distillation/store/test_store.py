"""Stored once, found by content, never misread."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import batches_of
from s3_server import endpoint as endpoint
from s3_server import new_bucket

from dsgkd.distillation.store import populate as filling
from dsgkd.distillation.store import shard
from dsgkd.distillation.store.populate import chunks, populate, populate_chunk, words_needed
from dsgkd.distillation.store.shard import DamagedShard, Shard, write_shard
from dsgkd.distillation.store.shard_storage import ShardStorage, StoreConfig, folders
from dsgkd.distillation.store.state_kinds import StateKind, bytes_needed, kinds_of, request_of
from dsgkd.distillation.store.states import States
from dsgkd.distillation.teachers.teacher import LiveTeacher, StoredTeacher
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest
from dsgkd.storage.location import Location
from dsgkd.training.opening import open_notes

REQUEST = TapRequest((0, 2), (1,))
PARTS = kinds_of(REQUEST)


@pytest.fixture(scope="module")
def texts(make_config, cache):
    return open_notes(make_config(teacher="teacher"), cache).split("train")


@pytest.fixture
def view(texts):
    """The teacher's view of the texts."""
    return texts.teachers[0]


@pytest.fixture
def words(texts):
    """How many of the teacher's words are stored of each text."""
    return words_needed(texts.alignments[0], 32)


@pytest.fixture
def filled(tmp_path, view, words, make_model):
    """A store of several shards, and how it is filled again."""
    states, model = States(ShardStorage(tmp_path / "store"), "teacher-a"), make_model()

    def repair():
        return populate(states, view, words, PARTS, lambda: model, False)

    for rows in np.array_split(np.arange(len(view)), 3):
        populate_chunk(states, view, rows[words[rows] > 0], words, PARTS, model, False)
    states.reopen()
    return states, repair


def assert_answers(states, repair, texts, make_model):
    live, stored = LiveTeacher(make_model(), REQUEST), StoredTeacher(states, REQUEST, repair)
    for batch in batches_of(texts):
        one, other = (t.word_states(batch.pairs[0]).hidden[2] for t in (stored, live))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_is_there_is_not_computed_again(filled, view, words):
    states, _ = filled
    assert len(states.shards) == 3
    assert not len(states.missing(view.keys, words, PARTS))
    assert populate(states, view, words, PARTS, lambda: pytest.fail("loaded"), False) is False


def test_only_what_is_missing_is_computed(filled, texts, view, words, make_model, monkeypatch):
    states, repair = filled
    lost = states.shards[1]
    lost.path.unlink()
    states.reopen()
    missing = states.missing(view.keys, words, PARTS)
    assert sorted(view.keys[missing]) == sorted(lost.keys)
    read = []
    batches = filling.teacher_batches

    def spy(view, rows, *rest):
        read.extend(rows)
        return batches(view, rows, *rest)

    monkeypatch.setattr(filling, "teacher_batches", spy)
    assert repair()
    assert sorted(read) == sorted(missing)
    assert_answers(states, repair, texts, make_model)


def test_a_layer_and_words_that_are_asked_for_later_are_added(
    filled, texts, view, words, make_model
):
    states, repair = filled
    more = (*PARTS, StateKind("hidden", 3))
    assert len(states.missing(view.keys, words, more)) == (words > 0).sum()
    assert populate(states, view, words, (StateKind("hidden", 3),), make_model, False)
    assert not len(states.missing(view.keys, words, more))
    few = States(ShardStorage(states.storage.folder.parent / "few"), "teacher-a")
    populate(few, view, np.minimum(words, 1), PARTS, make_model, False)
    longer = np.flatnonzero(words > 1)
    assert few.missing(view.keys, words, PARTS).tolist() == longer.tolist()
    populate(few, view, words, PARTS, make_model, False)
    assert_answers(few, repair, texts, make_model)


def test_two_students_share_what_one_teacher_said(make_config, cache, tmp_path, make_model):
    """The rows' keys depend on the teacher's reading alone."""
    one, two = (
        open_notes(make_config(student=student, teacher="teacher"), tmp).split("train").teachers[0]
        for student, tmp in (("student", cache), ("long-student", tmp_path))
    )
    assert np.array_equal(one.keys, two.keys)
    shorter = open_notes(make_config(teacher="teacher", max_length=12), cache).split("train")
    same = one.keys == shorter.teachers[0].keys
    assert same.any()
    assert not same.all()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    if how == "truncated":
        content = content[: len(content) * 2 // 3]
    elif how == "empty":
        content = bytearray()
    elif how == "state":
        content[-3] ^= 0x10
    elif how == "index":  # the largest type comes first: the keys
        content[header + 1] ^= 0x10
    elif how == "header":
        content[20] ^= 0x01
    elif how == "garbage":
        content = bytearray(os.urandom(4096))
    elif how == "shape":
        size = int.from_bytes(content[:8], "little")
        described = json.loads(content[8 : 8 + size])
        entry = described["hidden.0"]["shape"]
        entry[0], entry[1] = entry[0] * 2, entry[1] // 2
        text = json.dumps(described, separators=(",", ":")).encode().ljust(size)
        content[8 : 8 + size] = text
    # A new file in its place, as a copy gone wrong would be: the old one may be mapped.
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "state", "index", "header", "garbage", "shape", "foreign"]
)
def test_a_damaged_or_foreign_shard_is_never_used_and_is_computed_anew(
    how, filled, texts, view, words, make_model
):
    states, _ = filled
    victim = states.shards[0].path
    if how == "foreign":
        other = States(ShardStorage(states.storage.folder.parent / "other"), "teacher-b")
        populate(other, view, words, PARTS, lambda: make_model(seed=9), False)
        victim.unlink()
        other.shards[0].path.rename(victim)
    else:
        damage(victim, how)
    opened = States(ShardStorage(states.storage.folder), "teacher-a")

    def mend_opened():
        return populate(opened, view, words, PARTS, make_model, False)

    if how != "state":  # all else shows when the file is opened
        assert [refused.path for refused in opened.refused] == [victim]
        assert len(opened.missing(view.keys, words, PARTS))
        mend_opened()
        assert not opened.refused
    assert_answers(opened, mend_opened, texts, make_model)
    assert not len(opened.missing(view.keys, words, PARTS))


def test_every_single_flipped_bit_is_noticed(filled):
    """Of one shard, at random places in header, index and states."""
    states, _ = filled
    path = states.shards[0].path
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    copy = path.with_name("copy.safetensors")
    harmless = 0
    for place in draw.integers(0, len(content), 300):
        changed = bytearray(content)
        changed[place] ^= 1 << int(draw.integers(8))
        copy.unlink(missing_ok=True)
        copy.write_bytes(changed)
        try:
            Shard(copy, "teacher-a").check()
            # Names in the header that mean nothing to a reader, such as the order of its entries.
            harmless += 1
        except DamagedShard:
            pass
    assert harmless == 0


def test_a_kill_between_chunks_loses_the_chunk_under_way_only(
    view, words, make_model, tmp_path, monkeypatch
):
    states = States(ShardStorage(tmp_path), "teacher-a")
    monkeypatch.setattr(filling, "SHARD_BYTES", 2500)
    size = bytes_needed(PARTS, make_model().config, words, view.lengths)
    assert size > 7500
    written, write = [], filling.write_shard

    def killed(*given):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*given))
        return written[-1]

    monkeypatch.setattr(filling, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        populate(states, view, words, PARTS, make_model, False)
    again = States(ShardStorage(tmp_path), "teacher-a")
    assert [shard.path for shard in again.shards] == sorted(written)
    monkeypatch.setattr(filling, "write_shard", write)
    before = len(again.missing(view.keys, words, PARTS))
    assert 0 < before < (words > 0).sum()
    populate(again, view, words, PARTS, make_model, False)
    assert not len(again.missing(view.keys, words, PARTS))
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_processes_that_want_the_same_wait_for_the_first(view, words, make_model, tmp_path):
    loads = []

    def load():
        loads.append(1)
        return make_model()

    def work():
        populate(States(ShardStorage(tmp_path), "teacher-a"), view, words, PARTS, load, False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_the_size_is_known_beforehand_to_the_byte(filled, view, words, make_model):
    states, _ = filled
    stored = sum(array.nbytes for one in states.shards for array in one.states.values())
    size = bytes_needed(PARTS, make_model().config, words, view.lengths)
    assert stored == size
    rows = np.flatnonzero(words > 0)
    cut = chunks(view, rows, words, PARTS, make_model().config, workers=3)
    assert len(cut) == 6
    assert np.array_equal(np.concatenate(cut), rows)


def test_object_storage_is_read_through_a_copy_on_each_node(
    texts, view, words, make_model, tmp_path, endpoint
):
    """Shards are mapped from the node's copy."""
    bucket = Location(new_bucket(endpoint))
    uri = bucket.child("teacher").root
    first = States(ShardStorage(tmp_path / "node-1", uri), "teacher-a")
    first.storage.describe({"teacher": "a"})
    populate(first, view, words, PARTS, make_model, False)

    second = States(ShardStorage(tmp_path / "node-2", uri), "teacher-a")
    assert not len(second.missing(view.keys, words, PARTS))
    assert all(one.path.is_relative_to(tmp_path / "node-2") for one in second.shards)
    assert (tmp_path / "node-2" / "teacher.json").exists()

    # A copy gone bad is discarded everywhere and computed again.
    damage(second.shards[0].path, "state")
    third = States(ShardStorage(tmp_path / "node-2", uri), "teacher-a")

    def repair():
        return populate(third, view, words, PARTS, make_model, False)

    assert_answers(third, repair, texts, make_model)
    store = StoreConfig(bucket.root, str(tmp_path / "nodes"))
    ((name, storage),) = folders(store, tmp_path)
    assert name == "teacher"
    assert len(storage.shards()) == len(third.shards)
    second.storage.remove()
    assert not bucket.folders()


def test_storage_that_cannot_be_reached_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match="nosuch://x: no storage that can be used"):
        ShardStorage(tmp_path, "nosuch://x")
    with pytest.raises(InputError, match="budget_gb: 0"):
        StoreConfig(budget_gb=0)


def test_files_are_closed_to_others(filled):
    states, _ = filled
    assert {path.stat().st_mode & 0o077 for path in states.storage.folder.iterdir()} == {0}
    assert states.storage.folder.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(filled, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard, "save_file", full)
    one = np.ones(1, np.int64)
    with pytest.raises(InputError, match="no space left on the disk: free some"):
        write_shard(tmp_path / "new", "t", one, one, one, {StateKind("hidden", 1): np.ones((1, 4))})
    assert not list((tmp_path / "new").iterdir())


def test_numbers_beyond_float16_are_cut_off_not_infinite(tmp_path):
    one = np.ones(1, np.int64)
    path = write_shard(
        tmp_path, "t", one, one, one, {StateKind("hidden", 1): np.array([[1e9, -1e9, 3.0]])}
    )
    assert Shard(path, "t").states[StateKind("hidden", 1)].tolist() == [[65504.0, -65504.0, 3.0]]


def test_words_are_stored_up_to_the_last_that_is_transferred(texts):
    (alignment,) = texts.alignments
    for most in (1, 2, 32):
        for words, needed in zip(alignment.words, words_needed(alignment, most), strict=True):
            assert needed == max((word[4] + 1 for word in words[:most].tolist()), default=0)


def test_requests_and_parts_are_the_same_thing_said_twice():
    assert request_of(kinds_of(REQUEST)) == REQUEST
    assert [str(part) for part in PARTS] == ["hidden.0", "hidden.2", "words.1"]
    assert tuple(StateKind.parse(str(part)) for part in PARTS) == PARTS
    with pytest.raises(ValueError, match="one after the other"):
        request_of((StateKind("words", 1), StateKind("positions", 1)))
