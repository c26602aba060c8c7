"""Draw the import graph of the floors into `docs/architecture.svg` (`make graph`).

The order of the floors comes from the contracts in `pyproject.toml`, the imports from the code, and
what a floor is for from the docstring of its package. The same code gives the same bytes.
"""

import ast
import re
import sys
import textwrap
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grimp
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
UNIT, STEP = 0.5, 0.7  # inches from one floor to the one below; how far that stands to the right
WIDTH, HEIGHT, LANE = 3.0, 0.68, 0.22  # of a box; where its lane leaves it, from its left edge
LETTER, MOST = 0.125, 84  # estimated width of a letter, and how many describe a floor
RADIUS = 0.21  # of the circle that holds a number of imports
INK, PAPER, WRONG = "#22303c", "#ffffff", "#c0392b"
LEGEND = (
    "A line that leaves a box downwards enters, from the left, the boxes that it imports. "
    "In a circle: how many imports. In a box: how many files."
)


@dataclass(frozen=True)
class Floor:
    """A module with everything below it: what it is for, and how many files it has."""

    name: str
    label: str
    purpose: str
    files: int


def layers(root: Path) -> dict[str, list[str]]:
    """The modules of each layers contract, lowest first, by the package that contains them."""
    configuration = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found = {}
    for contract in configuration["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            (container,) = contract["containers"]
            names = [name.strip(" ()") for layer in contract["layers"] for name in layer.split("|")]
            found[container] = [f"{container}.{name}" for name in reversed(names)]
    return found


def describe(root: Path, name: str, container: str) -> Floor:
    """The first sentence of a module's docstring, and the number of its files."""
    place = root / name.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    files = len(list(place.rglob("*.py"))) if place.is_dir() else 1
    sentence = re.split(r"[.?](?:\s|$)", text, maxsplit=1)[0]
    label = name.removeprefix(f"{container}.")
    return Floor(name, label, textwrap.shorten(sentence, MOST, placeholder=" ..."), files)


def imports(graph: grimp.ImportGraph, floors: list[str]) -> Counter[tuple[str, str]]:
    """How many imports lead from a module of one floor to a module of another."""
    members = {
        module: floor for floor in floors for module in {floor, *graph.find_descendants(floor)}
    }
    return Counter(
        (floor, members[target])
        for module, floor in members.items()
        for target in graph.find_modules_directly_imported_by(module)
        if members.get(target, floor) != floor
    )


def staircase(axes: Axes, floors: list[Floor], edges: Counter[tuple[str, str]], top: float) -> None:
    """Boxes on a diagonal: imports leave a box downwards and enter one from the left."""
    at = {floor.name: (STEP * row, top - row) for row, floor in enumerate(floors)}
    shades = mpl.colormaps["viridis"]
    colours = {
        name: mpl.colors.to_hex(shades(0.08 + 0.7 * row / len(at))) for row, name in enumerate(at)
    }
    for name, (x, y) in at.items():
        targets = [at[b][1] for a, b in edges if a == name]
        sources = [at[a][0] for a, b in edges if b == name]
        if targets:
            ends = (max(y, *targets), min(y, *targets))
            axes.plot([x, x], ends, color=colours[name], lw=1.6, zorder=2)
        if sources:
            line = {"arrowstyle": "-|>", "color": "#9aa5ae", "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (x - LANE, y), (min(sources), y), arrowprops=line, zorder=1)
    for (a, b), count in sorted(edges.items()):
        centre = (at[a][0], at[b][1])
        colour = colours[a] if at[a] < at[b] else WRONG
        axes.add_patch(Circle(centre, RADIUS, facecolor=colour, edgecolor=PAPER, lw=1.2, zorder=3))
        write(axes, *centre, str(count), size=7, weight="bold", color=PAPER, ha="center")
    for floor in floors:
        left, y = at[floor.name][0] - LANE, at[floor.name][1]
        style = {"facecolor": colours[floor.name], "edgecolor": PAPER, "lw": 1.5, "zorder": 5}
        corners = "round,pad=0,rounding_size=0.12"
        axes.add_patch(
            FancyBboxPatch((left, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle=corners, **style)
        )
        write(axes, left + 0.16, y, floor.label, size=10, weight="bold", color=PAPER)
        if floor.files > 1:
            write(axes, left + WIDTH - 0.14, y, str(floor.files), size=8, color=PAPER, ha="right")
        write(axes, left + WIDTH + 0.18, y, floor.purpose, size=8.5)


def write(
    axes: Axes, x: float, y: float, text: str, *, size: float, color: str = INK, **style: str
) -> None:
    """Write `text`, its middle at the height `y`."""
    axes.text(x, y, text, fontsize=size, color=color, va="center_baseline", zorder=6, **style)


def draw(root: Path, target: Path) -> None:
    """Write the picture of every layers contract, one below the other, to `target`."""
    graph = grimp.build_graph("dsgkd", "analysis", cache_dir=None)
    with mpl.rc_context({"svg.hashsalt": "dsgkd", "svg.fonttype": "none"}):
        figure = Figure(facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        top, right = 0.0, 0.0
        for container, names in layers(root).items():
            known = [name for name in reversed(names) if name in graph.modules]
            if container == "dsgkd":
                known.insert(0, "analysis")
            write(axes, -LANE, top, container, size=13, weight="bold")
            floors = [describe(root, name, container) for name in known]
            staircase(axes, floors, imports(graph, known), top - 1)
            top -= len(floors) + 1.4
            ends = (STEP * row + LETTER * len(floor.purpose) for row, floor in enumerate(floors))
            right = max(right, WIDTH + max(ends))
        write(axes, -LANE, top + 0.5, LEGEND, size=8.5)
        left, above = -0.6, 0.6
        axes.axis((left, right, top, above))
        axes.set_axis_off()
        figure.set_size_inches(UNIT * (right - left), UNIT * (above - top))
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "architecture.svg")
