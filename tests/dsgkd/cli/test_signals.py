"""What a signal does to a command."""

import signal

import pytest

from dsgkd.cli.terminal import run_command, stop_on_sigterm


@pytest.fixture(autouse=True)
def handlers():
    """Put back what the tests change."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_is_answered_by_whoever_answers_ctrl_c():
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    stop_on_sigterm()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # the second one must not cut off the tidying up
    assert heard == [signal.SIGINT]


@pytest.mark.parametrize("answer", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_ends_a_command_as_ctrl_c_does(capsys, answer):
    signal.signal(signal.SIGINT, answer)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: signal.raise_signal(signal.SIGTERM))
    assert ended.value.code == 130
    assert "go on with --resume" in capsys.readouterr().err
