"""Where stored teachers are kept, and how much of the disk they may take."""

from pathlib import Path

from dsgkd.configuration import Positive, Text, config


@config
class StoreConfig:
    """Where stored teachers are kept, and how much of the disk they may take."""

    folder: Text = ""
    """A folder, or a URI of object storage such as s3://bucket/teachers; empty: in the cache."""
    node_folder: Text = ""
    """With a URI: the folder of each node's own copies; empty: in the cache."""
    budget_gb: Positive = 20.0
    """The most that the teachers of a study or run may take together, in GB (10^9 bytes)."""

    @property
    def is_remote(self) -> bool:
        """Whether the store is reached by a URI."""
        return "://" in self.folder

    def root(self, cache: Path) -> Path:
        """Return the folder from which shards are mapped into memory."""
        given = self.node_folder if self.is_remote else self.folder
        return Path(given).expanduser().absolute() if given else cache / "teachers"
