"""The picture of the import graph: the same every time, and true."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = {
    "pyproject.toml": """
[[tool.importlinter.contracts]]
name = "floors"
type = "layers"
containers = ["house"]
layers = ["roof | attic", "(cellar)"]
""",
    "house/__init__.py": '"""A house."""',
    "house/roof/__init__.py": '"""Keeps the rain off. No more."""\nimport house.cellar.coal\n',
    "house/roof/tiles.py": '"""Tiles."""\nfrom house.cellar import coal\nfrom house import roof\n',
    "house/attic.py": '"""Holds boxes."""',
    "house/cellar/__init__.py": '"""Is cool."""',
    "house/cellar/coal.py": '"""Coal."""',
}


@pytest.fixture(scope="module")
def architecture():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in PACKAGE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    pictures = []
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.svg"
        command = [sys.executable, str(ROOT / "docs/architecture.py"), str(file)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, check=True, env=environment)
        pictures.append(file.read_bytes())
    assert pictures[0] == pictures[1]
    for floor in ("analysis", "cli", "study", "ledger", "errors"):
        assert f">{floor}</text>".encode() in pictures[0]


def test_floors_are_those_of_the_contract(architecture, house: Path) -> None:
    assert architecture.layers(house) == {"house": ["house.cellar", "house.attic", "house.roof"]}


def test_imports_are_counted_between_floors(architecture, house: Path) -> None:
    graph = grimp.build_graph("house", cache_dir=None)
    floors = ["house.roof", "house.attic", "house.cellar"]
    assert architecture.imports(graph, floors) == {("house.roof", "house.cellar"): 2}


def test_a_floor_is_described_by_its_first_sentence(architecture, house: Path) -> None:
    assert architecture.describe(house, "house.roof", "house") == architecture.Floor(
        "house.roof", "roof", "Keeps the rain off", 2
    )
