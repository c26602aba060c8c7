"""Every command explains itself, and does so in a moment."""

import subprocess
import sys

import pytest

from dsgkd.cli.main import COMMANDS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(run_cli, command):
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    assert "Example:" in out
    assert f"dsgkd {command}" in out


def test_every_leaf_of_a_configuration_has_a_documented_flag(run_cli):
    _, out, _ = run_cli("train", "--help-all")
    words = " ".join(out.replace("│", "").split())
    said = "--optimisation.encoder-lr FLOAT Peak learning rate of the encoder. [0.0001; more than 0"
    assert said in words


HEAVY = ("torch", "transformers", "ray", "optuna", "sklearn", "pandas")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_imports_nothing_that_takes_seconds(command):
    code = f"""
import sys
from dsgkd.cli import main
sys.argv = ["dsgkd", "{command}", "--help"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
