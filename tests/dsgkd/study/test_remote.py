"""A study in object storage: nothing but copies lies on the machines that run it."""

import json

import pytest
from s3_server import endpoint as endpoint
from s3_server import new_bucket

from dsgkd.data.identity import id_key
from dsgkd.errors import InputError
from dsgkd.ledger import Ledger
from dsgkd.storage.lease import Lease
from dsgkd.storage.location import Location
from dsgkd.study.config import ConfirmationConfig
from dsgkd.study.console import Console
from dsgkd.study.preparation.shared_cache import pull, push, share_key
from dsgkd.study.search.config import SearchConfig
from dsgkd.study.study import Study

QUIET = Console(lambda line: None)


@pytest.fixture
def bucket(endpoint, tmp_path, monkeypatch):
    """The URI of a folder of studies; copies go to the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    return new_bucket(endpoint)


def test_machines_share_the_key_of_the_ids_and_what_was_pre_trained(bucket, tmp_path):
    shared, one, other = Location(bucket), tmp_path / "one", tmp_path / "other"
    key = id_key(one)
    share_key(shared, one)
    folder = one / "models" / "tiny 소아-abc"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"123")
    (folder / "pretraining.json").write_text("{}")
    push(shared, one)
    id_key(other)  # it had made one of its own
    pull(shared, other)
    assert id_key(other) == key
    assert (other / "models" / "tiny 소아-abc" / "deep" / "weights").read_bytes() == b"123"
    pull(shared, other)  # again: nothing to do
    assert [path.name for path in (other / "models").iterdir()] == ["tiny 소아-abc"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_runs_and_goes_on_in_object_storage(bucket, local_ray, study_in, tmp_path):
    settings = {
        "search": SearchConfig(trials=2),
        "confirmation": ConfirmationConfig(seeds=1, controls=()),
    }
    config = study_in(bucket, "far", test="once", **settings)
    study = Study(config, QUIET)
    study.check()
    assert study.run().tested
    far = config.location
    ledger = Ledger(far.child("ledger"))
    rows = ledger.rows("trials")
    assert {row["state"] for row in rows} == {"complete"}
    assert {row["stage"] for row in rows} == {"search", "confirm", "test"}
    assert ledger.read("predictions").num_rows > 0
    names = {entry.name for entry in far.list()}
    assert names == {"search.journal", "study.json"}
    model = far.child("trials/confirm-mlkd-000-000/model")
    assert {"config.json", "dsgkd.json"} <= {entry.name for entry in model.list()}
    checkpoints = far.child("trials/search-mlkd-000").list()
    assert {entry.name for entry in checkpoints} == {"best.safetensors", "last.safetensors"}
    # Another machine, without any copy, finds it done; and two at once are refused.
    (tmp_path / "copies").rename(tmp_path / "gone")
    again = study_in(bucket, "far", test="once", resume=True, **settings)
    resumed = Study(again, QUIET)
    resumed.check()
    resumed.run()
    assert len(ledger.rows("trials")) == len(rows)
    with Lease(Location(bucket), ".far.lock"), pytest.raises(InputError, match="running already"):
        Study(again, QUIET).run()
    written = json.loads(far.read("study.json"))
    assert written["configuration"]["name"] == "far"
