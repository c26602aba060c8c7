"""Every section of the benchmarks can be loaded: measuring takes long, so it is run by hand."""

from importlib import import_module

import pytest
from run import SECTIONS


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_can_be_loaded(name):
    assert callable(import_module(f"bench_{name}").run)
