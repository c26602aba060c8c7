"""`analysis.load` finds the ledger, reads it as it is, and says clearly when there is none."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_study import World

import analysis
from dsgkd import ledger
from dsgkd.errors import InputError
from dsgkd.ledger.schema import FLATTENED

ROOT = Path(__file__).parents[2]


def test_a_ledger_is_found_from_its_folder_its_study_and_the_folder_of_studies(
    study: World, tmp_path: Path
) -> None:
    home = tmp_path / "first"
    for path in (home / "ledger", home, tmp_path, str(home) + "/", home.as_uri()):
        found = analysis.load(path)
        assert len(found.trials) == study.count
        assert len(found.predictions) == 6
        assert found.studies.study_id.tolist() == ["first"]


def test_a_relative_path_is_found(
    study: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(analysis.load("first").trials) == study.count


def test_a_folder_of_several_studies_is_read_as_one(study: World, tmp_path: Path) -> None:
    second = World(tmp_path, "second")
    second.trial("plain", "search", 0.8)
    (tmp_path / "no study").mkdir()
    found = analysis.load(tmp_path)
    assert found.studies.study_id.tolist() == ["first", "second"]
    assert len(found.trials) == study.count + 1


def test_frames_have_the_types_of_the_ledger_even_when_they_are_empty(
    study: World, tmp_path: Path
) -> None:
    kinds = {
        "string": {"str", "object"},  # pandas 3, pandas 2
        "int64": {"Int64"},
        "double": {"float64"},
        "bool": {"bool", "boolean", "object"},
        "timestamp[us, tz=UTC]": {"datetime64[us, UTC]"},
        "list<element: float>": {"object"},
        "list<item: float>": {"object"},
    }
    for results in (study.results(), World(tmp_path / "empty").results()):
        for table, schema in ledger.SCHEMAS.items():
            frame = getattr(results, table)
            flattened = () if table == "studies" else FLATTENED
            kept = [field for field in schema if field.name not in flattened]
            assert list(frame.columns)[: len(kept)] == [field.name for field in kept]
            for field in kept:
                assert str(frame[field.name].dtype) in kinds[str(field.type)], field.name


def test_rows_are_sorted_by_their_key_whatever_the_order_of_the_files(world: World) -> None:
    key = {"study_id": "first", "trial_id": "t"}
    for name, attempt, epoch in (("a", 1, 0), ("b", 0, 1), ("c", 0, 0)):
        world.ledger.write("metrics", [{**key, "attempt": attempt, "epoch": epoch}], name)
    frame = world.results().metrics
    assert list(zip(frame.attempt, frame.epoch)) == [(0, 0), (0, 1), (1, 0)]


def test_a_frame_is_read_when_first_asked_for_and_then_kept(world: World) -> None:
    results = world.results()
    world.trial("plain", "search", 0.8)
    assert len(results.trials) == 1
    world.trial("plain", "search", 0.9)
    assert len(results.trials) == 1
    assert results.trials is results.trials
    assert len(world.results().trials) == 2


def test_results_are_frozen(world: World) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.results().ledgers = ()  # type: ignore[misc]


def test_a_file_still_being_written_is_not_read(study: World) -> None:
    for name in (".t.abc.tmp", ".t.parquet", "_t.parquet"):
        (Path(study.ledger.root) / "trials" / name).write_bytes(b"half a file")
    assert len(study.results().trials) == study.count


@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_a_place_without_a_ledger_is_named_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(analysis.NotALedger, match=place) as caught:
        analysis.load(tmp_path / place)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_place_is_named_in_one_line() -> None:
    with pytest.raises(InputError, match="nowhere://x") as caught:
        analysis.load("nowhere://x")
    assert "\n" not in str(caught.value)


def test_a_foreign_file_in_the_ledger_is_named(study: World) -> None:
    (Path(study.ledger.root) / "trials" / "mine.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(analysis.NotALedger, match=r"mine\.parquet: not a file of a ledger"):
        _ = study.results().trials


def test_a_table_of_another_origin_is_refused(study: World) -> None:
    pd.DataFrame({"study_id": ["x"]}).to_parquet(Path(study.ledger.root) / "trials" / "x.parquet")
    with pytest.raises(analysis.NotALedger, match=r"x\.parquet: not a file of a ledger"):
        _ = study.results().trials


def test_settings_measures_and_roles_are_columns(study: World, tmp_path: Path) -> None:
    trials = study.results().trials
    assert trials[trials.method == "mlkd"].alpha.notna().all()
    roles = dict(zip(trials.method, trials.role))
    assert roles == {"plain": "baseline", "mlkd": "method", "random-teacher": "control"}
    assert study.results().metrics.brier.notna().all()
    empty = World(tmp_path, "empty", measures={"perplexity": "minimise"}, objective="perplexity")
    assert "perplexity" in empty.results().metrics
    assert empty.results().objective() == "perplexity"


@pytest.mark.slow
def test_the_package_works_without_any_heavy_import(study: World) -> None:
    script = (
        "import sys, analysis\n"
        "from analysis import plots\n"
        f"results = analysis.load({study.ledger.root!r})\n"
        "assert len(analysis.best(results)) == 2 and len(analysis.compare(results)) == 3\n"
        "heavy = {'torch', 'ray', 'scipy', 'matplotlib', 'sklearn', 'transformers', 'boto3'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))\n"
        "assert 'Domain knowledge moved' in analysis.report(results)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
