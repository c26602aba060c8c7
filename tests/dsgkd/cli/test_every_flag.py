"""Every flag of every command takes what it means, or says in one line that it does not."""

from collections.abc import Callable
from typing import Any

import pytest

from dsgkd.cli import headroom, study, train
from dsgkd.cli.flags import flag_names, parse
from dsgkd.cli.pretrain import Pretrain
from dsgkd.errors import InputError

BAD = ("-1", "0", "nan", "inf", "1e30", "", "x" * 5000, "\x1b[31m", "\udc80", "none", "1,2,3")


def read_study(arguments: list[str]) -> Any:
    return study.read_flags(study.default_study, arguments, "dsgkd study", "")


def read_pretrain(arguments: list[str]) -> Any:
    return parse(Pretrain, ["--corpus", "c", "--out", "o", *arguments], "dsgkd pretrain", "")


def read_train(arguments: list[str]) -> Any:
    return train.read_flags(["--out", "o", *arguments])


def read_headroom(arguments: list[str]) -> Any:
    return headroom.read_flags(arguments)


IN_TRAIN = flag_names(train.Train("o"))
IN_STUDY = flag_names(study.StudyCommand(study.default_study(train.RunConfig())))
IN_HEADROOM = [name for name in flag_names(headroom.HeadroomCommand()) if "headroom" in name]
CASES = [
    pytest.param(read, name, id=f"{command}-{name}")
    for command, read, names in (
        ("train", read_train, IN_TRAIN),
        ("study", read_study, [name for name in IN_STUDY if name not in IN_TRAIN]),
        ("headroom", read_headroom, IN_HEADROOM),
        ("pretrain", read_pretrain, flag_names(Pretrain("c", "o"))),
    )
    for name in names
]


@pytest.mark.slow
@pytest.mark.parametrize(("read", "flag"), CASES)
def test_bad_values_are_refused_in_one_line_or_meant(
    read: Callable[[list[str]], Any], flag: str
) -> None:
    for value in BAD:
        line = ""
        try:
            read([f"--{flag}={value}"])
        except InputError as error:
            line = str(error)
        assert line.isprintable()
        assert len(line) < 400
