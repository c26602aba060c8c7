"""Thin commands: `dsgkd train`, `evaluate`, `predict`, `pretrain`."""

from dsgkd.cli.main import main

__all__ = ["main"]
