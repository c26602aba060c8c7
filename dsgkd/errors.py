"""What does a user see when the input is wrong? One line, and exit code 2."""


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
    """A place cannot be written. Whatever was writing is not at fault and can go on later."""
