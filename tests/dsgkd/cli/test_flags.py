"""A tree of configurations is read from a command line, and what does not fit is one line."""

from dataclasses import field
from typing import Annotated, Any, Literal

import pytest
import tyro
from annotated_types import Ge

from dsgkd.cli import flags
from dsgkd.cli.flags import parse
from dsgkd.configuration import Column, Count, LearningRate, Share, Text, Whole, config
from dsgkd.errors import InputError


@config
class DataConfig:
    path: Text = ""
    """Where the notes are."""
    group: Column | None = None
    """Column of the patients."""


@config
class OptimisationConfig:
    epochs: Count = 8
    """Passes over the notes,
    at most 100 % of them."""
    encoder_lr: LearningRate = 1e-4
    """Peak learning rate."""
    layers: tuple[Whole, ...] = (1, 2)
    """Layers."""
    ends: tuple[Share, Share] = (0.0, 1.0)
    """A range."""


@config
class Clipping:
    norm: Annotated[float, Ge(0)] = 1.0
    """Largest norm."""


@config
class RunConfig:
    data: DataConfig = field(default_factory=DataConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    clipping: Any = field(default_factory=Clipping)
    seed: Count = 17
    """Decides everything."""


@config
class Command:
    """A command."""

    out: Text
    """Where to write."""
    run: RunConfig = field(default_factory=RunConfig)
    teachers: tuple[Text, ...] = ("a", "b")
    """Teachers."""
    test: Literal["", "once", "again"] = ""
    """Read the test split."""
    tune: bool = True
    """Tune it."""
    others: tuple[DataConfig, ...] = (DataConfig("x"),)


@config
class Reading:
    input: Annotated[tyro.conf.Positional[Text], "x"]
    """What to read."""
    rows: Count | None = None
    """How many."""


@pytest.fixture(autouse=True)
def short_names(monkeypatch):
    monkeypatch.setattr(
        flags,
        "SHORT",
        {
            "DataConfig.path": "data",
            "DataConfig.group": "group",
            "OptimisationConfig.epochs": "epochs",
            "Command.teachers": "teacher",
        },
    )
    monkeypatch.setattr(
        flags,
        "EXPANDED",
        {
            "--fast": ("--epochs", "1"),
            "--teacher-corpus": ("--teacher", "corpus:{}"),
            "--fixed-seed": ("--seed", "1{}"),
        },
    )


def read(*arguments: str, **keywords: Any) -> Command:
    return parse(Command, ["--out", "o", *arguments], "dsgkd x", "Text.", **keywords)


def test_defaults_are_those_of_the_fields():
    assert read() == Command("o")


def test_a_base_configuration_holds_other_defaults_and_flags_override_it():
    base = Command("p", run=RunConfig(seed=3), others=(DataConfig("y"),))
    assert read("--epochs", "2", default=base) == Command(
        "o", run=RunConfig(optimisation=OptimisationConfig(epochs=2), seed=3), others=base.others
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--epochs 3", RunConfig(optimisation=OptimisationConfig(epochs=3))),
        ("--epochs=3", RunConfig(optimisation=OptimisationConfig(epochs=3))),
        ("--epochs 2 --epochs 3", RunConfig(optimisation=OptimisationConfig(epochs=3))),
        ("--optimisation.epochs 3", RunConfig(optimisation=OptimisationConfig(epochs=3))),
        ("--optimisation.encoder_lr 1", RunConfig(optimisation=OptimisationConfig(encoder_lr=1.0))),
        ("--optimisation.layers 3", RunConfig(optimisation=OptimisationConfig(layers=(3,)))),
        ("--optimisation.layers none", RunConfig(optimisation=OptimisationConfig(layers=()))),
        (
            "--optimisation.ends 0.1,0.2",
            RunConfig(optimisation=OptimisationConfig(ends=(0.1, 0.2))),
        ),
        ("--optimisation.ends 0.5", RunConfig(optimisation=OptimisationConfig(ends=(0.5, 0.5)))),
        ("--group=", RunConfig(data=DataConfig(group=""))),
        ("--clipping.norm 2", RunConfig(clipping=Clipping(2.0))),
        ("--fast --seed 5", RunConfig(optimisation=OptimisationConfig(epochs=1), seed=5)),
    ],
)
def test_flags_are_fields_by_their_dotted_or_short_name(arguments, expected):
    assert read(*arguments.split()) == Command("o", run=expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--teacher x --teacher y,z", Command("o", teachers=("x", "y", "z"))),
        ("--teacher x --teacher-corpus /y", Command("o", teachers=("x", "corpus:/y"))),
        ("--test --no-tune", Command("o", test="once", tune=False)),
        ("--test again", Command("o", test="again")),
    ],
)
def test_lists_switches_and_values_that_may_be_left_out(arguments, expected):
    assert read(*arguments.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--epochs many", "--epochs: 'many' does not fit: give a whole number, 1 or more"),
        ("--epochs 0", "--epochs: 0 is too small: give 1 or more"),
        ("--epochs 1.5", "--epochs: '1.5' does not fit: give a whole number, 1 or more"),
        ("--seed -1", "--seed: -1 is too small: give 1 or more"),
        ("--optimisation.encoder-lr nan", "--optimisation.encoder-lr: nan does not fit"),
        ("--optimisation.ends 0,0,1", "--optimisation.ends"),
        ("--optimisation.ends 0,2", "--optimisation.ends"),
        ("--optimisation.layers 1,x", "--optimisation.layers: '1,x' does not fit"),
        ("--epochs", "--epochs: no value: give a whole number, 1 or more"),
        ("--seed 1 --fixed-seed 2", "--fixed-seed: given beside --seed"),
        ("--fixed-seed 2 --seed 1", "--seed: given beside --fixed-seed"),
        ("--data=", "--data: empty: leave the flag out, or give a value"),
        ("--epoch 1", "--epoch: no such flag: did you mean --epochs?"),
        ("--test perhaps", "--test: 'perhaps' does not fit: give one of: (empty), once, again"),
        ("word", "word: too much"),
        ("--others x", "--others: no such flag"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_flag(arguments, line):
    with pytest.raises(InputError) as caught:
        read(*arguments.split())
    assert str(caught.value).startswith(line)


def test_an_empty_word_is_refused_for_a_shell_variable_may_not_be_set():
    with pytest.raises(InputError, match=r"^--data: empty"):
        read("--data", "")


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match=r"^--out: missing"):
        parse(Command, [], "dsgkd x", "")
    with pytest.raises(InputError, match=r"^INPUT: missing"):
        parse(Reading, [], "dsgkd x", "")


def test_positional_arguments_and_optional_values():
    assert parse(Reading, ["-", "--rows", "2"], "dsgkd x", "") == Reading("-", 2)


def test_hidden_fields_are_no_flags_and_keep_their_default():
    base = Command("o", run=RunConfig(seed=5))
    assert read(default=base, hidden=frozenset({"run.seed"})) == base
    with pytest.raises(InputError, match=r"^--seed: no such flag"):
        read("--seed", "6", hidden=frozenset({"run.seed"}))


def test_help_has_short_names_and_help_all_every_field(capsys):
    texts = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as caught:
            parse(Command, [flag], "dsgkd x", "Example:\n  dsgkd x --out o")
        assert caught.value.code == 0
        texts[flag] = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "--epochs INT, --optimisation.epochs INT" in texts["--help"]
    assert "at most 100 % of them. [8; 1 or more]" in texts["--help"]
    assert "Example: dsgkd x --out o" in texts["--help"]
    assert "--optimisation.encoder-lr" not in texts["--help"]
    assert "--optimisation.encoder-lr FLOAT Peak learning rate. [0.0001;" in texts["--help-all"]
