import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsgkd.data.identity import id_key
from dsgkd.errors import InputError


def test_the_key_is_made_once_and_is_the_owners_only(tmp_path: Path) -> None:
    key = id_key(tmp_path / "cache")

    assert len(key) == 32
    assert id_key(tmp_path / "cache") == key
    assert id_key(tmp_path / "another") != key
    (file,) = (tmp_path / "cache").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_asks_while_the_key_is_being_written_gets_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[bytes] = []
    original = os.fdopen

    def slow(*args: object, **kwargs: object) -> object:
        """The file exists and is empty: another process asks at this very moment."""
        monkeypatch.setattr(os, "fdopen", original)
        others.append(id_key(tmp_path))
        return original(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "fdopen", slow)
    key = id_key(tmp_path)

    assert others == [key]
    assert len(key) == 32
    assert [file.name for file in tmp_path.iterdir()] == ["example-id.key"]


def test_many_who_ask_at_once_get_one_key(tmp_path: Path) -> None:
    barrier = threading.Barrier(16)

    def ask(_: int) -> bytes:
        barrier.wait()
        return id_key(tmp_path / "cache")

    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(ask, range(16)))

    assert len(keys) == 1


def test_a_damaged_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "example-id.key").write_bytes(b"")

    with pytest.raises(InputError, match=r"example-id\.key: damaged"):
        id_key(tmp_path)


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")

    with pytest.raises(InputError, match="choose another --out"):
        id_key(tmp_path / "cache")
