"""The loop gives the losses and measures that it gave before it was rebuilt.

On the machine that wrote `golden/losses.json` every number was identical to the last bit. Other
processors add up in another order, so here they may differ by 1e-5 of their size.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dsgkd.data.sources import SEALED
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.config import OptimisationConfig, RunConfig, SelectionConfig, paper_preset
from dsgkd.training.loop import train
from dsgkd.training.opening import open_run

GOLDEN = Path(__file__).parents[2] / "golden" / "losses.json"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "standard": {"alpha": 2.0},
    "standard+emb": {"alpha": 0.7, "mapping": "uniform+emb"},
    "attention": {"alpha": 0.5, "beta": 1.5, "mapping": "last-1"},
    "attention only": {"alpha": 0.0, "beta": 2.0, "max_transfer_words": 2},
    "live": {"alpha": 2.0, "teacher_store": "live"},
    "random teacher": {"alpha": 1.0, "teacher_weights": "random"},
    "shuffled words": {"alpha": 1.0, "shuffled": True},
    "paper": {},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_of(name: str, make_config: Callable[..., RunConfig]) -> RunConfig:
    long = "long-" if name == "paper" else ""
    teacher = "" if name == "plain" else f"{long}teacher"
    optimisation = OptimisationConfig(epochs=3, batch_size=8, encoder_lr=1e-3, precision="fp32")
    run = replace(
        make_config(f"{long}student", teacher, CASES[name], max_length=64, splits=SEALED),
        optimisation=optimisation,
        selection=SelectionConfig(stop_when_stale=()),
    )
    if name != "paper":
        return run
    paper = paper_preset(run)
    return replace(
        paper,
        distillation=replace(paper.distillation, alpha=3.3, beta=0.9),
        optimisation=replace(paper.optimisation, epochs=2, batch_size=8),
    )


@pytest.mark.parametrize("name", CASES)
def test_the_loop_gives_the_losses_and_measures_that_it_gave_before(
    name: str, make_config: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    expected = json.loads(GOLDEN.read_text())[name]

    results = list(train(open_run(run_of(name, make_config), cache), Checkpoints(tmp_path)))

    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        absent = dict.fromkeys(("loss_hidden", "loss_attention"), 0.0)
        losses = {f"loss_{part}": value for part, value in result.weighted.items()}
        assert absent | losses | {"loss": result.loss} == pytest.approx(wanted["train"], rel=1e-5)
        measured = wanted["validation"] | {"threshold": wanted["threshold"]}
        assert result.validation == pytest.approx(measured, rel=1e-5)
