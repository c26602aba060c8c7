"""Errors that become one line on a terminal, and exit code 2."""

import errno
import re
from pathlib import Path


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: where it was found, what was found, and what to do. It must never
    contain the text of a note; file names, column names, row numbers and counts are fine.
    Commands print it to standard error and exit with code 2.
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(where, what, remedy)
        self.where, self.what, self.remedy = where, what, remedy

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}: {self.remedy}".split())


class StorageError(InputError):
    """A place cannot be read or written. Whatever used it is not at fault and can go on later."""

    @classmethod
    def of(
        cls, path: str | Path, error: Exception, elsewhere: str = "another --out"
    ) -> "StorageError":
        """Return what to say of a file that could not be written because of another error."""
        told = re.search(r"os error (\d+)", str(error))  # by safetensors
        number = int(told[1]) if told else getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            what, remedy = "no space left on the disk", f"free some, or choose {elsewhere}"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
            what, remedy = "no permission to write here", f"grant it, or choose {elsewhere}"
        else:
            reason = getattr(error, "strerror", None) or str(error)[:200]
            what, remedy = f"cannot be written ({reason})", f"choose {elsewhere}"
        return cls(str(path), what, remedy)

    @classmethod
    def unreachable(cls, path: str, error: Exception) -> "StorageError":
        """Return what to say of object storage that failed, after it was asked several times."""
        told = re.search(r"AWS Error (?!UNKNOWN)(\w+)", str(error))
        reason = told[1].lower().replace("_", " ") if told else str(error)[:200]
        remedy = "check the address, the credentials and the network, then go on"
        return cls(path, f"cannot be reached or written ({reason})", remedy)
