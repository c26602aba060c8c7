"""Texts without labels beside the notes of `tiny_runs`."""

import pytest
from tiny_runs import MILD, URGENT, notes_of

from dsgkd.data.transfer_set import TransferConfig


@pytest.fixture(scope="session")
def transfer(tmp_path_factory: pytest.TempPathFactory) -> TransferConfig:
    """Thirty notes without labels and eight terms; of the notes twice as many as labelled ones."""
    folder = tmp_path_factory.mktemp("transfer")
    notes = [note["text"] for note in notes_of(30, seed=77)]
    (folder / "more.txt").write_text("\n".join(notes), encoding="utf-8")
    (folder / "terms.txt").write_text("\n".join(URGENT + MILD), encoding="utf-8")
    return TransferConfig(
        unlabelled=(str(folder / "more.txt"),),
        glossary=str(folder / "terms.txt"),
        mix="labelled=1,unlabelled=2",
    )
