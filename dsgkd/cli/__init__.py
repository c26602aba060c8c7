"""The command line: thin commands, whose flags are made from configurations."""

from dsgkd.cli.main import main

__all__ = ["main"]
