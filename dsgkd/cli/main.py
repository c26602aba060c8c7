"""The commands; the module of one is imported only when it is asked for, so `--help` is quick."""

import importlib
import sys

from dsgkd import __version__
from dsgkd.cli.terminal import run_command

COMMANDS = {
    "headroom": "say beforehand whether there is any domain knowledge to transfer",
    "study": "search for the best settings, confirm them on fresh seeds, test them once",
    "status": "say how a study stands, while it runs or afterwards",
    "rerun": "train a trial of a study again, and compare",
    "train": "train one student, distilled from a teacher or alone",
    "evaluate": "measure a trained student on labelled notes",
    "predict": "classify notes with a trained student",
    "pretrain": "pre-train a language model on text, from scratch or continued",
    "store": "list, verify and prune stored teachers",
}

USAGE = f"""usage: dsgkd COMMAND ...

Distil a domain-specific language model into a general one.

commands:
{chr(10).join(f"  {name:<10} {what}" for name, what in COMMANDS.items())}

dsgkd COMMAND --help explains a command and gives an example.
"""


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(__version__)
        sys.exit(0)
    command, *rest = arguments
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"dsgkd: no command '{command}': choose of {known}, or see --help", file=sys.stderr)
        sys.exit(2)
    module = importlib.import_module(f"dsgkd.cli.{command}")
    run_command(lambda: module.run(rest))
