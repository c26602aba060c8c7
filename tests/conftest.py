"""Fixtures of runs that take a second are wanted by several floors; markers have to be true."""

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

pytest_plugins = ["tiny_runs"]

SLOW = 3.0
"""Seconds from which a test without a marker is named at the end."""


@pytest.fixture(autouse=True)
def _ray_is_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a Ray without the marker `ray`: it would not have run by itself."""
    began_with_ray = _ray_runs()
    yield
    if _ray_runs() and not began_with_ray and "ray" not in request.keywords:
        pytest.fail("starts a Ray without the marker `ray`")


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that should be marked `slow`."""
    seconds: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        if not {"slow", "ray"} & set(report.keywords):
            seconds[report.nodeid] += report.duration
    for test, took in seconds.most_common():
        if took < SLOW:
            break
        terminalreporter.write_line(f"took {took:.0f} s without the marker `slow`: {test}")
