"""`dsgkd store` finds what runs left, says whether it is whole, and removes what may go."""

import os
import time
from pathlib import Path

import pytest

from dsgkd.distillation.teachers import source as teachers

pytestmark = pytest.mark.slow


@pytest.fixture
def cache(run_cli, short, tmp_path) -> Path:
    """The cache of two runs with stored teachers."""
    teachers.open_states.cache_clear()
    flags = ["--cache", tmp_path / "cache", "--teacher-store", "stored"]
    for number, seed in enumerate((1, 2)):
        weights = ["--distillation.teacher-weights", "random"] if number else []
        run = ["--out", tmp_path / f"run-{number}", "--seed", seed, *weights]
        code, out, err = run_cli("train", *short, *flags, *run)
        assert code == 0, err
        assert "stored teacher, as asked for" in out
    teachers.open_states.cache_clear()
    return tmp_path / "cache"


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("teachers/*/*.safetensors"))


def test_ls_lists_every_teacher_with_its_size_and_layers(run_cli, cache):
    code, out, _ = run_cli("store", "ls", "--cache", cache)
    assert code == 0
    assert out.count("layers: hidden.2, hidden.3") == 2
    assert "teacher-random-2-" in out
    assert out.rstrip().endswith("kB in all")


def test_verify_says_what_is_whole_removes_the_rest_and_exits_with_2(run_cli, cache):
    code, out, _ = run_cli("store", "verify", "--cache", cache)
    assert code == 0
    assert out.count("1 shards are whole, 0 damaged") == 2

    victim = shards(cache)[0]
    content = bytearray(victim.read_bytes())
    content[-5] ^= 1
    victim.write_bytes(content)
    code, out, err = run_cli("store", "verify", "--cache", cache)
    assert code == 2
    assert "states were changed" in out
    assert err.count("\n") == 1
    assert "1 damaged shards were removed" in err
    assert victim not in shards(cache)
    assert run_cli("store", "verify", "--cache", cache)[0] == 0


def test_prune_removes_what_is_named_and_leftovers_only(run_cli, cache):
    first, second = shards(cache)
    leftover = first.with_name(f".abc.safetensors.{'0' * 32}.tmp")
    leftover.write_bytes(b"x")
    recent = first.with_name(f".abd.safetensors.{'1' * 32}.tmp")
    recent.write_bytes(b"x")
    os.utime(leftover, (time.time() - 3 * 86400,) * 2)
    code, out, _ = run_cli("store", "prune", "--cache", cache)
    assert code == 0
    assert "1 bytes freed" in out
    assert not leftover.exists()
    assert recent.exists()
    assert len(shards(cache)) == 2

    card = second.with_name("teacher.json")
    os.utime(card, (time.time() - 40 * 86400,) * 2)
    run_cli("store", "prune", "--cache", cache, "--older-than", "30")
    assert shards(cache) == [first]
    run_cli("store", "prune", "--cache", cache, "--keep-gb", "1")
    assert shards(cache) == [first]
    run_cli("store", "prune", "--cache", cache, "--keep-gb", "0")
    assert not shards(cache)


def test_a_folder_without_stores_is_one_line(run_cli, tmp_path):
    code, _, err = run_cli("store", "ls", "--cache", tmp_path)
    assert code == 2
    assert err.startswith(f"error: {tmp_path}/teachers: no stored teachers here")
