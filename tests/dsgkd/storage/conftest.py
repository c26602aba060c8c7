from pathlib import Path

import pytest
from s3_server import endpoint as endpoint
from s3_server import new_bucket

from dsgkd.storage import location as module
from dsgkd.storage.location import Location


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that does not exist yet: a local folder, or a prefix in an empty bucket."""
    if request.param == "local":
        return str(tmp_path / "a folder")
    return new_bucket(request.getfixturevalue("endpoint"))


@pytest.fixture
def location(root: str) -> Location:
    return Location(root)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
