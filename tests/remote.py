"""A remote file system in memory that counts what is asked of it, has faults and can die."""

from typing import Any

from pyarrow.fs import FSSpecHandler

CALLS = (
    "get_file_info",
    "get_file_info_selector",
    "create_dir",
    "move",
    "delete_file",
    "open_input_stream",
    "open_input_file",
    "open_output_stream",
)


class Remote(FSSpecHandler):
    """`kind` is the name of its type; an object store has no moves."""

    def __init__(self, kind: str) -> None:
        import fsspec

        super().__init__(fsspec.filesystem("memory", skip_instance_cache=True))
        self.fs.store, self.fs.pseudo_dirs = {}, [""]
        self.kind, self.moves, self.lose_moves = kind, 0, False
        self.calls, self.dies_at, self.faults = 0, 0, 0

    def get_type_name(self) -> str:
        return self.kind

    def move(self, src: str, dest: str) -> None:
        self.moves += 1
        if self.lose_moves:
            raise OSError("connection\nlost")
        super().move(src, dest)

    @property
    def dead(self) -> bool:
        """Whether the call was reached that kills it."""
        return 0 < self.dies_at <= self.calls


def _mortal(name: str) -> Any:
    """Make a method that fails from the call on that kills: before or after it has its effect."""
    inner = getattr(Remote, name)

    def method(self: Remote, *args: Any) -> Any:
        if self.faults:
            self.faults -= 1
            raise OSError("connection\nlost")
        if self.dead:
            raise OSError("killed")
        self.calls += 1
        if self.dead and name != "delete_file":
            raise OSError("killed")
        result = inner(self, *args)
        if self.dead:
            raise OSError("killed")
        return result

    return method


for _name in CALLS:
    setattr(Remote, _name, _mortal(_name))
