"""Do the flags on watching a study say what leaves the building, and refuse what is unknown?"""

import pytest

from dsgkd.cli.terminal import parser_of
from dsgkd.cli.watching import watching_flags


def test_trackers_add_up_and_are_off_by_default(capsys):
    parser = parser_of("a study", "study")
    watching_flags(parser)
    flags = parser.parse_args(["--track", "tensorboard", "--track", "mlflow", "--on-end", "true"])
    assert flags.track == ["tensorboard", "mlflow"]
    assert flags.on_end == "true"
    flags = parser.parse_args([])
    assert (flags.track, flags.on_end, flags.plain_progress) == ([], "", False)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--track", "comet"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "leave your building" in " ".join(capsys.readouterr().out.split())
