"""Measure what `docs/performance.md` reports.

    python tests/benchmarks/run.py                       all sections, about an hour on two cores
    python tests/benchmarks/run.py --only step,store     some of them; the others' results are kept
    python tests/benchmarks/run.py --quick               fewer rounds: to see that it works

Prints a table for each section and writes `benchmarks.json` and pictures into `--out`.
"""

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE), str(HERE.parent)]

from harness import Section, Spread, machine  # noqa: E402

SECTIONS = (
    "step",
    "reference",
    "preparation",
    "store",
    "pretraining",
    "study",
    "search",
    "many",
    "ledger",
    "train",
    "growth",
    "choices",
    "gpu",
)
"""Each is a module `bench_<name>` with a function `run(quick)`."""


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    flags = parser.parse_args()
    wanted = flags.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: choose of {', '.join(SECTIONS)}")
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "benchmarks.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in wanted:
        started = time.perf_counter()
        section = importlib.import_module(f"bench_{name}").run(flags.quick)
        show(section)
        print(f"({time.perf_counter() - started:.0f} s)\n", flush=True)
        found[name] = {"machine": machine(), "quick": flags.quick, **asdict(section)}
        path.write_text(json.dumps(found, indent=1))
    pictures = importlib.import_module("pictures")
    pictures.draw(found, flags.out)
    print(f"written: {path}")


def show(section: Section) -> None:
    """Print a section as a table."""
    print(section.title)
    columns = list(dict.fromkeys(name for row in section.rows for name in row))
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in section.rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)))
    for note in section.notes:
        print(f"  {note}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value) if not isinstance(value, Spread) else f"{value}"


if __name__ == "__main__":
    main()
