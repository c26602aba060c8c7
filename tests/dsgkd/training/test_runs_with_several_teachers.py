"""A student of two teachers: each has its share of every term, its mapping and its own store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from watched_runs import assert_resumes, assert_same_weights, trained, weights

from dsgkd.errors import InputError
from dsgkd.training.config import RunConfig
from dsgkd.training.opening import open_run

Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def make(make_config: Make, zoo: Path) -> Make:
    def make(store: str = "stored", teacher: str = "", **distillation: object) -> RunConfig:
        config = make_config(
            "student",
            distillation={"beta": 0.5, "teacher_store": store, **distillation},
            optimisation={"epochs": 2},
        )
        both = teacher or f"0.7*{zoo / 'teacher'}+0.3*{zoo / 'roberta'}"
        return replace(config, distillation=replace(config.distillation, teacher=both))

    return make


def test_every_term_has_a_part_for_each_teacher_with_its_share(
    make: Make, cache: Path, tmp_path: Path
) -> None:
    _, results = trained(make(alpha=2.0, mapping="uniform;last-1"), cache, tmp_path)

    for result in results:
        names = ["ce", "hidden_1", "hidden_2", "attention_1", "attention_2"]
        assert list(result.weighted) == list(result.raw) == names
        weight = {
            "ce": 1,
            "hidden_1": 1.4,
            "hidden_2": 0.6,
            "attention_1": 0.35,
            "attention_2": 0.15,
        }
        wanted = {name: weight[name] * value for name, value in result.raw.items()}
        assert result.weighted == pytest.approx(wanted)
        assert all(value > 0 for value in result.raw.values())
        assert result.loss == pytest.approx(sum(result.weighted.values()))
    for name in ("hidden_1", "hidden_2"):
        assert results[-1].raw[name] < results[0].raw[name]


def test_live_and_stored_teachers_teach_the_same(make: Make, cache: Path, tmp_path: Path) -> None:
    live, told = trained(make("live"), cache, tmp_path / "live")
    stored, read = trained(make("stored"), cache, tmp_path / "stored")

    assert [teacher.is_stored for teacher in live.teachers] == [False, False]
    assert [teacher.is_stored for teacher in stored.teachers] == [True, True]
    for one, other in zip(told, read, strict=True):
        assert one.weighted == pytest.approx(other.weighted, rel=2e-3)
        assert one.validation["loss"] == pytest.approx(other.validation["loss"], rel=2e-3)


def test_two_teachers_are_read_from_the_stores_of_each(make: Make, cache: Path, zoo: Path) -> None:
    open_run(make(), cache)

    for name in ("teacher", "roberta"):
        (teacher,) = open_run(make(teacher=str(zoo / name)), cache).teachers
        assert teacher.store == "hit"


@pytest.mark.slow
def test_it_is_resumed_to_the_bit(make: Make, cache: Path, tmp_path: Path) -> None:
    assert_resumes(make(), cache, tmp_path / "stored", [3, 9])
    assert_resumes(make("live"), cache, tmp_path / "live", [7])


def test_one_teacher_named_with_a_share_is_that_teacher(
    make: Make, cache: Path, tmp_path: Path, zoo: Path
) -> None:
    path = str(zoo / "teacher")
    plain, results = trained(make(teacher=path), cache, tmp_path / "plain")
    shared, same = trained(make(teacher=f"0.4*{path}"), cache, tmp_path / "shared")

    assert [r.weighted for r in results] == [r.weighted for r in same]
    assert_same_weights(weights(plain), weights(shared))


def test_a_mapping_for_each_teacher_or_one_for_all(make: Make, zoo: Path) -> None:
    with pytest.raises(InputError, match="3 for 2 teachers"):
        make(mapping="uniform;uniform;last-1")
    with pytest.raises(InputError, match="give different ones"):
        make(teacher=f"{zoo / 'teacher'}+{zoo / 'teacher'}")
