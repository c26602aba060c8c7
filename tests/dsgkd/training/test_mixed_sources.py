"""Texts without labels join the terms of the loss, not the task; the mix goes on to the bit."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from watched_runs import assert_resumes, trained, watch

from dsgkd.alignment.batch import Batch
from dsgkd.data.transfer_set import Feedback, FixedMix, TransferConfig
from dsgkd.distillation.distiller import Losses
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import load_state
from dsgkd.training import opening
from dsgkd.training.config import RunConfig
from dsgkd.training.loop import LAST, new_optimizer, take_step
from dsgkd.training.opening import OpenRun, open_run
from dsgkd.training.workers import Workers

pytestmark = pytest.mark.slow

told: list[Feedback] = []


class Leaning(FixedMix):
    """The worse the student is on its task, the more labelled notes it reads."""

    def update(self, feedback: Feedback) -> None:
        told.append(feedback)
        self.weights["unlabelled"] = 2.0 / (0.5 + feedback.losses["labelled"])


@pytest.fixture(scope="module")
def config(make_config: Callable[..., RunConfig], transfer: TransferConfig) -> RunConfig:
    return make_config(
        "still-student",
        "teacher",
        {"beta": 0.5, "teacher_store": "stored"},
        {"epochs": 2, "batch_size": 24},
        transfer=transfer,
    )


@pytest.fixture(scope="module")
def run(config: RunConfig, cache: Path) -> OpenRun:
    return open_run(config, cache)


def losses(run: OpenRun, batch: Batch, texts: int, words: int) -> Losses:
    states = [run.teachers[0].provider.word_states(pair) for pair in batch.pairs]
    return run.distiller(batch, states, float(texts), [float(words)])


def gradient(run: OpenRun, loss: torch.Tensor) -> torch.Tensor:
    parameters = [p for p in run.student.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, found)
        ]
    )


def test_a_text_without_a_label_adds_to_the_terms_and_nothing_to_the_task(run: OpenRun) -> None:
    run.distiller.train()
    rows, collate = run.sampler().draw(0), run.collator()
    kind = run.texts.sources[rows]
    known, others = rows[kind == 0], rows[kind > 0]
    batch = collate(run.texts, rows)
    assert batch.labels.tolist() == run.texts.labels[rows].tolist()
    assert set(batch.labels.tolist()) == {-1, 0, 1}
    assert run.task.examples(batch) == len(known) == (batch.labels != -1).sum()
    words = int(batch.pairs[0].mask.sum())

    whole = losses(run, batch, len(known), words)
    parts = [losses(run, collate(run.texts, part), len(known), words) for part in (known, others)]

    logits = run.distiller.output(batch).logits[batch.labels != -1]
    by_hand = F.cross_entropy(logits, batch.labels[batch.labels != -1])
    torch.testing.assert_close(whole.weighted[0], by_hand)
    torch.testing.assert_close(whole.raw[0], parts[0].raw[0])
    assert parts[1].raw[0] == 0
    task, theirs = (gradient(run, part.weighted[0]) for part in (whole, parts[0]))
    torch.testing.assert_close(task, theirs, rtol=1e-4, atol=1e-7)
    assert not gradient(run, parts[1].weighted[0]).any()
    for term in (1, 2):
        assert parts[1].raw[term] > 0
        torch.testing.assert_close(whole.raw[term], parts[0].raw[term] + parts[1].raw[term])
        summed = gradient(run, parts[0].weighted[term]) + gradient(run, parts[1].weighted[term])
        torch.testing.assert_close(
            gradient(run, whole.weighted[term]), summed, rtol=1e-4, atol=1e-7
        )


def test_a_batch_without_any_label_has_no_task_loss_and_still_teaches(
    config: RunConfig, cache: Path
) -> None:
    run = open_run(config, cache)
    rows = np.flatnonzero(run.texts.sources == 1)[:6]
    batch = run.collator()(run.texts, rows)
    states = [run.teachers[0].provider.word_states(pair) for pair in batch.pairs]
    optimizer = new_optimizer(run)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    before = {name: value.clone() for name, value in run.student.state_dict().items()}

    found = take_step(run, run.distiller, batch, states, optimizer, schedule, Workers())

    after = run.student.state_dict()
    assert found.weighted[0] == 0
    assert found.weighted[1] > 0
    assert all(value.isfinite().all() for value in after.values())
    layer = "encoder.layer.0.attention.self.query.weight"
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.endswith(layer) for name in changed)


def test_every_batch_holds_its_share_of_every_source(
    config: RunConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[int]] = []
    watch(monkeypatch, lambda batch: rows.append(batch.rows.tolist()))
    run, results = trained(config, cache, tmp_path)

    names = run.texts.source_names
    assert names == ("labelled", "unlabelled", "glossary")
    assert np.bincount(run.texts.sources).tolist() == [41, 30, 8]
    assert [len(batch) for batch in sorted(rows, key=len)[-12:]] == [24] * 12
    for batch in rows:
        counts = np.bincount(run.texts.sources[batch], minlength=3)
        assert np.abs(counts - len(batch) * np.array([1, 2, 1]) / 4).max() <= 2
    per_epoch = Counter(row for batch in rows[:7] for row in batch)
    assert all(per_epoch[row] == 1 for row in range(41))
    assert results[-1].step == len(rows) == 14
    read = results[0].examples_per_second * results[0].seconds
    assert read == pytest.approx(sum(map(len, rows[:7])))


@pytest.mark.parametrize("step", [0, 1, 5, 7, 8, 13])
def test_a_mixed_run_is_resumed_to_the_bit_at_any_step(
    config: RunConfig, cache: Path, tmp_path: Path, step: int
) -> None:
    assert_resumes(config, cache, tmp_path, [step])


@pytest.mark.slow
def test_a_mix_that_changes_is_told_of_every_evaluation_and_resumed_to_the_bit(
    config: RunConfig, cache: Path, tmp_path: Path
) -> None:
    leaning = replace(config.transfer, sampler="test_mixed_sources:Leaning", glossary="")
    longer = replace(config.optimisation, epochs=3)
    config = replace(config, transfer=leaning, optimisation=longer)
    told.clear()
    _, results = trained(config, cache, tmp_path / "alone")

    assert [feedback.step for feedback in told] == [result.step for result in results]
    for feedback, result in zip(told, results, strict=True):
        assert feedback.losses == {"labelled": result.validation["loss"]}
    state = load_state(tmp_path / "alone" / LAST)["progress"]["sampler"]
    wanted = 2.0 / (0.5 + results[-1].validation["loss"])
    assert state["next"] == {"labelled": 1.0, "unlabelled": wanted}
    assert state["weights"]["unlabelled"] not in (2.0, wanted)
    # Within the first pass, at its end, and in the passes after it with other weights.
    assert_resumes(config, cache, tmp_path, [3, 6, 8, 12, 16])


@pytest.mark.parametrize("sampler", ["nothing", "nowhere:Class"])
def test_a_sampler_that_is_not_there_is_one_line(
    config: RunConfig, cache: Path, sampler: str
) -> None:
    unknown = replace(config, transfer=replace(config.transfer, sampler=sampler))
    with pytest.raises(InputError, match=f"sampler: '{sampler}'"):
        open_run(unknown, cache).sampler()


def test_a_run_with_other_unlabelled_texts_does_not_go_on(
    config: RunConfig, cache: Path, tmp_path: Path
) -> None:
    trained(config, cache, tmp_path / "run")
    more = tmp_path / "more.txt"
    (given,) = config.transfer.unlabelled
    more.write_text(Path(given).read_text(encoding="utf-8"), encoding="utf-8")
    moved = replace(config, transfer=replace(config.transfer, unlabelled=(str(more),)))
    trained(moved, cache, tmp_path / "run")  # wherever the file lies

    more.write_text(more.read_text(encoding="utf-8") + "\n보호자 동반 cough", encoding="utf-8")
    opening._transfer_sources.cache_clear()  # another process
    with pytest.raises(InputError, match="a run with other texts"):
        trained(moved, cache, tmp_path / "run")
