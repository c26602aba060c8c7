"""Fixtures of runs that take a second are wanted by several floors."""

pytest_plugins = ["tiny_runs"]
