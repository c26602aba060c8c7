"""Every configuration comes back whole from JSON; one that does not fit is refused in one line."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge
from hypothesis import given, settings
from hypothesis import strategies as st

from dsgkd.configuration import Count, LearningRate, Name, Seed, Share, config, structure
from dsgkd.errors import InputError
from dsgkd.study.config import StudyConfig
from dsgkd.training.config import RunConfig, paper_preset
from dsgkd.training.pretraining_config import PretrainingConfig


@dataclass(frozen=True)
class Leaf:
    number: int = 1
    share: float = 0.5
    on: bool = False
    name: str = ""
    kind: Literal["a", "b", 3] = "a"
    maybe: str | None = None
    either: int | str = 0
    where: Path = Path("x")
    many: tuple[float, ...] = ()
    pair: tuple[int, str] = (1, "x")
    table: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    leaf: Leaf
    leaves: tuple[Leaf, ...] = ()
    perhaps: Leaf | None = None
    anything: Any = None


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


paths = st.text("abc/.", min_size=1).map(Path)
floats = st.floats(allow_nan=False)
leaves = st.builds(
    Leaf,
    share=floats,
    where=paths,
    many=st.lists(floats).map(tuple),
    table=st.dictionaries(st.text(), st.lists(st.integers()).map(tuple)),
)


@given(
    st.builds(
        Tree, leaves, st.lists(leaves, max_size=3).map(tuple), st.none() | leaves, st.integers()
    )
)
@settings(max_examples=60, deadline=None)
def test_a_tree_of_any_kind_comes_back(tree):
    assert structure(Tree, asdict(tree)) == tree
    assert structure(Tree, through_json(asdict(tree))) == tree


def _other(kind: Any, value: Any) -> list[Any]:
    """Values of a field besides its own, some of which its dataclass may refuse."""
    if get_origin(kind) is Literal:
        return [choice for choice in get_args(kind) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2, value / 2 if isinstance(value, float) else value + 7]
    if isinstance(value, tuple):
        any_length = get_args(kind)[-1] is Ellipsis
        return [value[:1], value[1:], value[::-1]] if any_length else [value[:1] * len(value)]
    if value is None:
        return ["given"]
    return ["given"] if isinstance(value, str) else []


def _variants(config: Any) -> list[Any]:
    """Return the configuration with each of its fields changed, at any depth."""
    hints, found = get_type_hints(type(config)), []
    for each in fields(config):
        value = getattr(config, each.name)
        nested = is_dataclass(value) and not isinstance(value, type)
        for other in _variants(value) if nested else _other(hints[each.name], value):
            try:
                found.append(replace(config, **{each.name: other}))
            except InputError:
                continue
    return found


@pytest.mark.parametrize(
    "config",
    [RunConfig(), paper_preset(RunConfig()), PretrainingConfig(), StudyConfig("name", Path("out"))],
    ids=["run", "paper", "pretraining", "study"],
)
def test_every_field_of_every_configuration_comes_back(config):
    variants = [config, *_variants(config)]
    assert len(variants) > len(fields(config))
    for one in variants:
        assert structure(type(config), asdict(one)) == one
        back = structure(type(config), through_json(asdict(one)))
        assert back == one
        assert asdict(back) == asdict(one)


def test_whole_numbers_are_floats_where_floats_are_wanted():
    share = structure(Leaf, {"share": 3}).share
    assert (share, type(share)) == (3.0, float)


def test_fields_that_an_older_version_did_not_know_get_their_defaults():
    plain = asdict(RunConfig(seed=5))
    del plain["splits"], plain["distillation"]["shuffled"]
    assert structure(RunConfig, plain) == RunConfig(seed=5)


@pytest.mark.parametrize(
    ("plain", "where"),
    [
        ({"leaf": {"number": "1"}}, "leaf.number"),
        ({"leaf": {"number": True}}, "leaf.number"),
        ({"leaf": {"number": 1.5}}, "leaf.number"),
        ({"leaf": {"on": 1}}, "leaf.on"),
        ({"leaf": {"name": None}}, "leaf.name"),
        ({"leaf": {"kind": "c"}}, "leaf.kind"),
        ({"leaf": {"kind": True}}, "leaf.kind"),
        ({"leaf": {"maybe": 1}}, "leaf.maybe"),
        ({"leaf": {"many": 1.0}}, "leaf.many"),
        ({"leaf": {"many": [1.0, "x"]}}, r"leaf.many\[1\]"),
        ({"leaf": {"pair": [1]}}, "leaf.pair"),
        ({"leaf": {"table": []}}, "leaf.table"),
        ({"leaf": {"table": {"a": [None]}}}, r"leaf.table.a\[0\]"),
        ({"leaf": []}, "leaf: a list does not fit"),
        ({"leaf": {}, "leaves": [{"new": 1}]}, r"leaves\[0\].new: this version of dsgkd knows no"),
        ({}, "leaf: missing"),
        ([], "configuration"),
    ],
)
def test_what_does_not_fit_is_named_and_its_value_is_not_shown(plain, where):
    with pytest.raises(InputError, match=f"^{where}" if plain else where):
        structure(Tree, plain)


def test_values_that_make_no_sense_are_refused_as_ever():
    with pytest.raises(InputError, match="epochs: 0 is too small"):
        structure(RunConfig, {"optimisation": {"epochs": 0}})


@config
class Checked:
    count: Count = 3
    share: Share = 0.5
    rate: LearningRate = 0.1
    seed: Seed = 1
    name: Name = "first"
    kind: Literal["a", "b"] = "a"
    ends: tuple[Share, Share] = (0.0, 1.0)
    maybe: Annotated[int, Ge(2)] | None = None

    def __post_init__(self) -> None:
        if self.ends[0] > self.ends[1]:
            raise InputError("ends", "the wrong way round", "swap them")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"count": -1}, "count: -1 is too small: give 1 or more"),
        ({"count": 10**30}, "count: a number of this size is too large: give less than 1e+12"),
        ({"count": "3"}, "count: '3' does not fit: give a whole number, 1 or more"),
        ({"count": True}, "count: True does not fit: give a whole number, 1 or more"),
        ({"share": 2.0}, "share: 2.0 is too large: give 0 to 1"),
        ({"share": float("nan")}, "share: nan does not fit: give a number, 0 to 1"),
        ({"rate": 0.0}, "rate: 0.0 is too small: give more than 0 and at most 10"),
        ({"seed": 2**63}, "seed: a number of this size is too large: give less than 9.22337e+18"),
        ({"name": "a/b"}, "name: 'a/b' does not fit: give letters, digits, dots,"),
        ({"name": "\x1b[1m"}, r"name: '\x1b[1m' does not fit"),
        ({"kind": "c"}, "kind: 'c' does not fit: choose one of: a, b"),
        ({"ends": (0.0, 1.5)}, "ends[1]: 1.5 is too large: give 0 to 1"),
        ({"ends": (1.0, 0.5)}, "ends: the wrong way round: swap them"),
        ({"maybe": 1}, "maybe: 1 is too small: give 2 or more"),
        ({"other": 1}, "other: this version of dsgkd knows no such field"),
    ],
)
def test_a_field_that_does_not_fit_is_one_line(given, line):
    with pytest.raises(InputError) as caught:
        Checked(**given)
    assert str(caught.value).startswith(line)


def test_a_configuration_is_a_frozen_dataclass():
    checked = Checked(share=1)
    assert type(checked.share) is float
    assert replace(checked, count=5) == Checked(count=5, share=1.0)
    assert pickle.loads(pickle.dumps(checked)) == checked
    assert hash(checked) == hash(Checked(share=1.0))
    with pytest.raises(InputError, match="count: 0 is too small"):
        replace(checked, count=0)
    with pytest.raises(FrozenInstanceError):
        checked.count = 4
