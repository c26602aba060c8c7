"""What one process at a time may hold, and loses when it dies."""

import json
import threading
import time
import uuid
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout

from dsgkd.errors import InputError, StorageError
from dsgkd.storage.location import Location

_CLOCK = 1.0
"""Seconds by which a server's dates may be rounded."""


class Busy(InputError):
    """Another process holds the lease."""


class Lease:
    """Held inside a `with` block by one process at a time.

    On a local disk it is a lock on a file, and gone with its process. In object storage it is an
    object that a thread renews; when it was not renewed for `seconds`, by the server's clock,
    its holder is taken to be dead.

    Args:
        location: where.
        name: of the file or object; it stays there after its release.
        seconds: how long a dead holder's lease lasts in object storage.
        wait: seconds to wait for another holder before `Busy` is raised.
    """

    def __init__(
        self, location: Location, name: str, seconds: float = 60.0, wait: float = 0.0
    ) -> None:
        self._location, self._name = location, name
        self._seconds, self._wait = seconds, wait
        self._lock: FileLock | None = None
        self._over = threading.Event()
        self._tag = ""
        self.lost = False
        """Whether it was taken by another process, or could not be renewed in time."""

    def __enter__(self) -> "Lease":
        """Take it.

        Raises:
            Busy: another process holds it.
            StorageError: the storage cannot be reached or written.
            InputError: a kind of storage that has no leases.
        """
        if self._location.is_remote:
            self._take()
        else:
            self._take_file()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        if self._lock is not None:
            self._lock.release()
            return
        self._over.set()
        self._renewal.join()
        if not self.lost:
            with suppress(StorageError):  # then it ends by itself
                self._objects.put(self._name, b"{}", self._tag)

    def _take_file(self) -> None:
        path = self._location.folder / self._name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path)
            # filelock waits for ever where it is given a negative time.
            self._lock.acquire(timeout=self._wait if self._wait < float("inf") else -1)
        except Timeout:
            self._lock = None
            raise self._busy() from None
        except OSError as error:
            raise StorageError.of(path, error) from error

    def _take(self) -> None:
        self._objects, self._token = self._location.conditional(), uuid.uuid4().hex
        until = time.monotonic() + self._wait
        while True:
            found = self._objects.get(self._name)
            if found is None or _is_free(found.data, found.age):
                tag = self._objects.put(self._name, self._body(), found.tag if found else None)
                if tag is not None:
                    break
            left = until - time.monotonic()
            if left <= 0:
                raise self._busy()
            time.sleep(min(1.0, self._seconds / 10, left))
        self._tag = tag
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._renewal.start()

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(self._seconds / 3):
            asked = time.monotonic()
            try:
                tag = self._objects.put(self._name, self._body(), self._tag)
            except StorageError:
                if time.monotonic() - renewed < self._seconds:
                    continue
                tag = None
            if tag is None:
                self.lost = True
                return
            self._tag, renewed = tag, asked

    def _body(self) -> bytes:
        # A new value each time: equal bodies would have equal tags.
        return json.dumps(
            {"holder": self._token, "seconds": self._seconds, "beat": uuid.uuid4().hex}
        ).encode()

    def _busy(self) -> Busy:
        return Busy(
            self._location.path(self._name),
            "another process is at work here",
            "let it finish, or stop it, and try again",
        )


def _is_free(data: bytes, age: float) -> bool:
    held: dict[str, Any] = json.loads(data)
    return "holder" not in held or age > held["seconds"] + _CLOCK
