"""Every flag and every link in the documentation exists."""

import importlib
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dsgkd.cli.main import COMMANDS
from dsgkd.cli.short_names import EXPANDED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")]
PAGES += sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/performance.md"})
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z.-]*[a-z]")


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags of each command."""
    found = {}
    for command in COMMANDS:
        shown = io.StringIO()
        with redirect_stdout(shown), pytest.raises(SystemExit):
            importlib.import_module(f"dsgkd.cli.{command}").run(["--help-all"])
        found[command] = {"--help", "--help-all", *EXPANDED, *_FLAG.findall(shown.getvalue())}
    return found


def lines(text: str) -> list[str]:
    """The command lines in code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^((?:    \S.*\n)+)", text, re.MULTILINE | re.DOTALL)
    return "\n".join(a + b for a, b in blocks).replace("\\\n", " ").split("\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_flags_that_they_are_given(
    page: Path, flags: dict[str, set[str]]
) -> None:
    text = page.read_text(encoding="utf-8")
    every = set.union(*flags.values())
    for line in lines(text):
        command = re.search(r"\bdsgkd (\w+)|\b(studies/\w+\.py)", line.partition("#")[0])
        if command:
            known = flags[command[1] or "study"]
            assert set(_FLAG.findall(line[command.end() :])) <= known, line
    for span in re.findall(r"`(--[^`]+)`", text):
        assert set(_FLAG.findall(span)) <= every, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        if target and "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_find_them(page: Path) -> None:
    for target, heading in re.findall(
        r"\]\(([^)#:]*)#([\w-]+)\)", page.read_text(encoding="utf-8")
    ):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert heading in anchors, f"{target}#{heading}"
