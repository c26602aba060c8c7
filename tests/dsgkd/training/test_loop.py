import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from watched_runs import assert_same_weights, disturb, facts, watch, weights

from dsgkd.alignment.batch import Batch
from dsgkd.data.sources import SEALED, SPLITS, DataConfig
from dsgkd.errors import InputError
from dsgkd.storage.checkpoint import Checkpoints, load_state, save_state
from dsgkd.tasks import Classification
from dsgkd.tasks.measures import measures
from dsgkd.training import loop
from dsgkd.training.config import RunConfig, paper_preset
from dsgkd.training.evaluation import Evaluation, predict
from dsgkd.training.loop import BEST, LAST, DivergedError, restore_best, train
from dsgkd.training.opening import OpenRun, open_run

MakeConfig = Callable[..., RunConfig]


def script(monkeypatch: pytest.MonkeyPatch, **series: list[float]) -> None:
    """Let the validation measures of the epochs be these; the others stay what they are."""
    original, epoch = loop.evaluate_validation, -1

    def scripted(*args: Any) -> Evaluation:
        nonlocal epoch
        epoch += 1
        found = original(*args)
        values = {name: values[epoch] for name, values in series.items()}
        return replace(found, measured=found.measured | values)

    monkeypatch.setattr(loop, "evaluate_validation", scripted)


def test_the_loss_falls_on_an_easy_task(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    config = make_config("still-student", optimisation={"epochs": 10})

    results = list(train(open_run(config, cache), Checkpoints(tmp_path)))

    assert results[-1].weighted["ce"] < 0.5 * results[0].weighted["ce"]
    assert results[-1].validation["auroc"] > 0.95


def without_times(file: Path) -> bytes:
    """Return a checkpoint's bytes, written anew without how long its epochs took."""
    state = load_state(file)
    state.get("progress", {}).pop("history", None)
    save_state(file.with_suffix(".timeless"), state)
    return file.with_suffix(".timeless").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_that_is_closed_after_an_epoch_goes_on_bit_for_bit(
    make_config: MakeConfig, cache: Path, tmp_path: Path, precision: str, epochs: int
) -> None:
    config = make_config(
        teacher="teacher", distillation={"beta": 0.5}, optimisation={"precision": precision}
    )
    whole = open_run(config, cache)
    expected = list(train(whole, Checkpoints(tmp_path / "whole")))

    first = train(open_run(config, cache), Checkpoints(tmp_path / "cut"))
    before = [next(first) for _ in range(epochs)]
    first.close()
    disturb()
    second = open_run(config, cache)
    after = list(train(second, Checkpoints(tmp_path / "cut")))

    assert facts(before + after) == facts(expected)
    assert_same_weights(weights(second), weights(whole))
    for file in (BEST, LAST):
        cut, uncut = (without_times(tmp_path / run / file) for run in ("cut", "whole"))
        assert cut == uncut


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_dies_within_an_epoch_goes_on_bit_for_bit(
    make_config: MakeConfig,
    cache: Path,
    tmp_path: Path,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(
        teacher="teacher", optimisation={"precision": precision, "checkpoint_steps": 2}
    )
    whole = open_run(config, cache)
    expected = list(train(whole, Checkpoints(tmp_path / "whole")))

    seen = 0

    def die(_: Batch) -> None:
        nonlocal seen
        seen += 1
        if seen == 6 + 6:  # the last of the second epoch
            raise MemoryError

    with monkeypatch.context() as patch:
        watch(patch, die)
        before = []
        with pytest.raises(MemoryError):
            before.extend(train(open_run(config, cache), Checkpoints(tmp_path / "cut")))
    disturb()
    starts = watch(monkeypatch, lambda batch: None)
    second = open_run(config, cache)
    after = list(train(second, Checkpoints(tmp_path / "cut")))

    assert starts == [6 + 4, 12]
    assert facts(after) == facts(expected[1:])
    assert_same_weights(weights(second), weights(whole))


def test_the_time_of_an_epoch_counts_what_was_done_before_an_interruption(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(optimisation={"epochs": 1, "checkpoint_steps": 5})
    clock = 0.0

    def second(_: Batch) -> None:
        nonlocal clock
        clock += 1.0
        if clock == 6:
            raise MemoryError

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock)
    watch(monkeypatch, second)
    with pytest.raises(MemoryError):
        list(train(open_run(config, cache), Checkpoints(tmp_path)))
    (result,) = train(open_run(config, cache), Checkpoints(tmp_path))

    assert result.seconds == 6  # five steps before, one after
    assert result.examples_per_second == pytest.approx(41 / 6)


def test_a_finished_run_is_not_trained_again_but_says_its_last_result(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    run = open_run(make_config(optimisation={"epochs": 1}), cache)
    said = list(train(run, Checkpoints(tmp_path)))
    assert [result.finished for result in said] == [True]

    again = open_run(run.config, cache)
    assert list(train(again, Checkpoints(tmp_path))) == said
    assert_same_weights(weights(again), weights(run))


def test_a_folder_with_another_runs_checkpoint_is_refused(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    next(train(open_run(make_config(), cache), Checkpoints(tmp_path)))
    other = open_run(make_config(optimisation={"encoder_lr": 1e-5}), cache)

    with pytest.raises(InputError, match=f"{tmp_path}: .* run with other settings"):
        next(train(other, Checkpoints(tmp_path)))


def test_a_run_goes_on_where_its_notes_have_moved_and_its_seal_is_broken(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    config = make_config(splits=SEALED)
    expected = list(train(open_run(config, cache), Checkpoints(tmp_path / "whole")))
    next(train(open_run(config, cache), Checkpoints(tmp_path / "cut")))
    moved = tmp_path / "moved.csv"
    shutil.copy(config.data.path, moved)
    opened = replace(config, data=DataConfig(path=str(moved)), splits=SPLITS)

    rest = list(train(open_run(opened, cache), Checkpoints(tmp_path / "cut")))

    assert facts(rest) == facts(expected[1:])


def test_a_run_does_not_go_on_with_other_notes(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    config = make_config()
    next(train(open_run(config, cache), Checkpoints(tmp_path / "run")))
    changed = tmp_path / "changed.csv"
    text = Path(config.data.path).read_text(encoding="utf-8")
    changed.write_text(text.replace("내원", "퇴원", 1), encoding="utf-8")

    other = open_run(replace(config, data=DataConfig(path=str(changed))), cache)
    with pytest.raises(InputError, match="a run with other texts"):
        next(train(other, Checkpoints(tmp_path / "run")))


def test_encoder_head_and_projections_have_rates_of_their_own_and_vectors_do_not_decay(
    make_config: MakeConfig, cache: Path
) -> None:
    rates = {"encoder_lr": 1e-4, "classifier_lr": 2e-3, "projection_lr": 3e-2}
    config = make_config(teacher="teacher", optimisation=rates | {"weight_decay": 0.05})
    run = open_run(config, cache)
    names = {id(value): name for name, value in run.distiller.named_parameters()}

    seen = {}
    for group in loop.new_optimizer(run).param_groups:
        for value in group["params"]:
            seen[names[id(value)]] = (group["lr"], group["weight_decay"])

    assert seen.keys() == set(names.values())
    layer = "student.bert.encoder.layer.1.attention"
    assert seen[f"{layer}.self.query.weight"] == (1e-4, 0.05)
    assert seen[f"{layer}.self.query.bias"] == (1e-4, 0.0)
    assert seen[f"{layer}.output.LayerNorm.weight"] == (1e-4, 0.0)
    assert seen["student.bert.embeddings.word_embeddings.weight"] == (1e-4, 0.05)
    assert seen["student.classifier.weight"] == (2e-3, 0.05)
    assert seen["student.classifier.bias"] == (2e-3, 0.0)
    assert seen["terms.0.criterion.projections.1.weight"] == (3e-2, 0.05)
    assert seen["terms.0.criterion.projections.1.bias"] == (3e-2, 0.0)
    heads = {name for name, (rate, _) in seen.items() if rate == 2e-3}
    assert heads == {"student.classifier.weight", "student.classifier.bias"}
    undecayed = {name for name, (_, decay) in seen.items() if decay == 0.0}
    assert undecayed == {n for n in seen if n.endswith("bias") or "LayerNorm" in n}


def test_the_learning_rate_rises_and_falls_in_a_line(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules, rates = [], []
    original = loop.get_linear_schedule_with_warmup

    def remember(*args: Any) -> Any:
        schedules.append(original(*args))
        return schedules[-1]

    monkeypatch.setattr(loop, "get_linear_schedule_with_warmup", remember)
    watch(monkeypatch, lambda _: rates.append(schedules[0].get_last_lr()[0]))
    rising = {"epochs": 2, "warmup_share": 1 / 3, "encoder_lr": 1.0, "classifier_lr": 1.0}
    list(train(open_run(make_config(optimisation=rising), cache), Checkpoints(tmp_path)))

    up, down = [0, 1 / 4, 2 / 4, 3 / 4], [1 - k / 8 for k in range(8)]
    assert rates == pytest.approx(up + down)
    assert schedules[0].get_last_lr()[0] == 0


def test_every_batch_is_one_step_of_the_optimizer(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    results = list(train(open_run(make_config(), cache), Checkpoints(tmp_path)))

    assert [result.step for result in results] == [6, 12, 18]
    state = load_state(tmp_path / LAST)["optimizer"]["state"]
    assert {float(moments["step"]) for moments in state.values()} == {18.0}


def test_gradients_are_clipped_as_a_whole(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(nn.utils.get_total_norm([g for g in gradients if g is not None])))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = make_config(optimisation={"epochs": 1, "clip_norm": 1e-3})
    list(train(open_run(config, cache), Checkpoints(tmp_path)))

    assert norms == pytest.approx([1e-3] * 6, rel=1e-2)


def test_early_stopping_waits_for_every_measure_and_forgives_one_that_improves_again(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # f1 has been stale for 0, 1, 0, 1, 2 epochs; the loss for 0, 1, 2, 3, 4.
    script(monkeypatch, f1=[0.5, 0.5, 0.6, 0.6, 0.6, 0.6], loss=[1.0, 1.0, 1.1, 1.2, 1.0, 1.0])
    stopping = {"patience": 2, "stop_when_stale": ("f1", "loss"), "objective": "f1"}
    config = make_config(selection=stopping, optimisation={"epochs": 6})

    results = list(train(open_run(config, cache), Checkpoints(tmp_path)))

    assert [result.finished for result in results] == [False] * 4 + [True]
    assert [result.best_epoch for result in results] == [1, 1, 3, 3, 3]
    assert list(train(open_run(config, cache), Checkpoints(tmp_path))) == results[-1:]


def test_early_stopping_counts_on_after_an_interruption(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = {"patience": 2, "stop_when_stale": ("loss",), "objective": "f1"}
    config = make_config(selection=stopping, optimisation={"epochs": 6})
    script(monkeypatch, loss=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    first = train(open_run(config, cache), Checkpoints(tmp_path))
    next(first)
    next(first)
    first.close()

    assert [result.epoch for result in train(open_run(config, cache), Checkpoints(tmp_path))] == [3]


@pytest.mark.parametrize(
    ("at_chance", "stuck_epoch", "stuck"),
    [
        ([True, True, True], 2, [None, True, True]),
        ([True, True, False], 2, [None, True, False]),  # it got away later
        ([False, True, True], 2, [None, False, False]),
        ([True, True, True], 9, [None, None, True]),  # the last epoch is judged
        ([True, True, True], 0, [None, None, None]),
    ],
)
def test_a_run_is_stuck_until_an_epoch_is_better_than_chance(
    make_config: MakeConfig,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_chance: list[bool],
    stuck_epoch: int,
    stuck: list[bool | None],
) -> None:
    told = iter(at_chance)
    monkeypatch.setattr(Classification, "at_chance", lambda *_: next(told))
    config = make_config(selection={"stuck_epoch": stuck_epoch, "stop_when_stale": ()})
    first = train(open_run(config, cache), Checkpoints(tmp_path))
    before = [next(first)]
    first.close()

    results = before + list(train(open_run(config, cache), Checkpoints(tmp_path)))

    assert [result.stuck for result in results] == stuck


def test_without_measures_to_stop_on_every_epoch_is_trained(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    config = make_config(selection={"stop_when_stale": (), "patience": 1})

    assert len(list(train(open_run(config, cache), Checkpoints(tmp_path)))) == 3


def test_smaller_losses_are_better_ones(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, loss=[0.7, 0.4, 0.5])
    config = make_config(selection={"objective": "loss"})

    result = list(train(open_run(config, cache), Checkpoints(tmp_path)))[-1]

    assert (result.best_epoch, result.best_objective) == (2, 0.4)


def test_the_best_checkpoint_is_the_best_epochs_student(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, f1=[0.1, 0.9, 0.2])
    config = make_config(selection={"objective": "f1"})
    run = open_run(config, cache)
    recorded = {result.epoch: result for result in train(run, Checkpoints(tmp_path))}
    last = predict(run, run.validation)

    fresh = open_run(config, cache)
    restore_best(fresh, Checkpoints(tmp_path))
    notes = fresh.validation
    best = predict(fresh, notes)

    assert recorded[3].best_epoch == 2
    again = measures(notes.labels, best, recorded[2].validation["threshold"])
    again["threshold"] = recorded[2].validation["threshold"]
    assert {**again, "f1": 0.9} == recorded[2].validation
    assert not np.allclose(best, last)


def go_wild(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """Let every learning rate be one that no configuration allows."""
    original = loop.new_optimizer

    def wild(run: OpenRun) -> torch.optim.AdamW:
        optimizer = original(run)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return optimizer

    monkeypatch.setattr(loop, "new_optimizer", wild)


def test_a_loss_that_is_no_number_ends_the_run(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_wild(monkeypatch, 1e36)
    config = make_config(optimisation={"warmup_share": 0.0})

    with pytest.raises(DivergedError, match="loss is not finite in epoch 1"):
        list(train(open_run(config, cache), Checkpoints(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_last_step_destroyed_end_the_run(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_wild(monkeypatch, 3e38)
    one_step = {"batch_size": 64, "warmup_share": 0.0}

    with pytest.raises(DivergedError, match="weights are not finite after epoch 1"):
        list(train(open_run(make_config(optimisation=one_step), cache), Checkpoints(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_the_arms_of_a_comparison_differ_in_their_teacher_only(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faint = {"alpha": 1e-12, "beta": 1e-12}
    random_teacher = faint | {"teacher_weights": "random"}
    arms = {
        "plain": make_config(),
        "distilled": make_config(teacher="teacher", distillation=faint),
        "random": make_config(teacher="teacher", distillation=random_teacher),
        "shuffled": make_config(teacher="teacher", distillation=faint | {"shuffled": True}),
    }
    heads, orders, losses, words = {}, {}, {}, {}
    for name, config in arms.items():
        order: list[list[int]] = []
        with monkeypatch.context() as patch:
            watch(patch, lambda batch, order=order: order.append(batch.rows.tolist()))
            run = open_run(config, cache)
            heads[name] = run.student.classifier.weight.clone()
            result = next(train(run, Checkpoints(tmp_path / name)))
        orders[name], losses[name] = order, result.weighted["ce"]
        words[name] = result.weighted.get("hidden", 0.0)

    for name in ("distilled", "random", "shuffled"):
        assert torch.equal(heads[name], heads["plain"])
        assert orders[name] == orders["plain"]
        assert losses[name] == pytest.approx(losses["plain"], rel=1e-6)
    assert words["plain"] == 0
    assert len(set(words.values())) == 4


def test_what_is_drawn_between_opening_and_training_does_not_matter(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    losses = []
    for name in ("undisturbed", "disturbed"):
        run = open_run(make_config(), cache)
        if name == "disturbed":
            disturb()
        losses.append(next(train(run, Checkpoints(tmp_path / name))).loss)

    assert losses[0] == losses[1]


def test_opening_a_run_leaves_the_generators_alike_whatever_the_teacher(
    make_config: MakeConfig, cache: Path
) -> None:
    states = []
    for teacher in ("", "teacher"):
        open_run(make_config(teacher=teacher), cache)
        states.append(torch.get_rng_state())

    assert torch.equal(*states)


def test_other_seeds_draw_other_heads_orders_and_random_teachers(
    make_config: MakeConfig, cache: Path
) -> None:
    random_weights = {"teacher_weights": "random", "teacher_store": "live"}
    control = {"distillation": random_weights, "teacher": "teacher"}
    one, two = (open_run(make_config(**control, seed=seed), cache) for seed in (1, 2))

    assert not torch.equal(one.student.classifier.weight, two.student.classifier.weight)
    models = [run.teachers[0].provider.model for run in (one, two)]
    teachers = [model.embeddings.word_embeddings.weight for model in models]
    assert not torch.equal(*teachers)


def test_a_strong_teacher_pulls_the_student_towards_itself(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    terms = {"alpha": 3.0, "beta": 1.0, "mapping": "last-2+emb"}
    config = make_config("still-student", "teacher", terms, {"epochs": 6})

    results = list(train(open_run(config, cache), Checkpoints(tmp_path)))

    for term in ("hidden", "attention"):
        assert 0 < results[-1].weighted[term] < results[0].weighted[term]
    for result in results:
        assert list(result.weighted) == ["ce", "hidden", "attention"]
        assert result.loss == pytest.approx(sum(result.weighted.values()))
        assert result.weighted["hidden"] == pytest.approx(3 * result.raw["hidden"])
        assert result.raw["attention"] == pytest.approx(result.weighted["attention"])


def test_the_papers_preset_runs_from_end_to_end_with_texts_of_one_length(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = paper_preset(make_config("long-student", "long-teacher"))
    config = replace(config, optimisation=replace(config.optimisation, epochs=1))
    shapes = set()

    def see(batch: Batch) -> None:
        (pair,) = batch.pairs
        assert pair.teacher is not None
        shapes.add((batch.student.input_ids.shape[1], pair.teacher.input_ids.shape[1]))

    watch(monkeypatch, see)
    run = open_run(config, cache)
    results = list(train(run, Checkpoints(tmp_path)))

    assert len(shapes) > 1
    assert all(student == teacher for student, teacher in shapes)
    assert not list(run.distiller.terms.parameters())
    assert results[-1].step == 2
    assert results[-1].validation["threshold"] == pytest.approx(
        20 / 41
    )  # the share of urgent notes
    assert all(value > 0 for value in results[-1].weighted.values())


def test_a_checkpoint_holds_no_text_and_no_name_of_a_note(
    make_config: MakeConfig, cache: Path, tmp_path: Path, notes_csv: Path
) -> None:
    run = open_run(make_config(teacher="teacher", optimisation={"checkpoint_steps": 2}), cache)
    list(train(run, Checkpoints(tmp_path)))
    words = {
        word
        for line in notes_csv.read_text().splitlines()[1:]
        for word in line.split(",")[1].split()
    }
    secrets = {*words, *run.texts.example_ids, *run.validation.example_ids, "note-"}
    spellings = {s.encode() for s in secrets} | {json.dumps(s).strip('"').encode() for s in secrets}

    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in files} == {BEST, LAST}
    assert len(words) > 15
    for file in files:
        content = file.read_bytes()
        assert not [spelling for spelling in spellings if spelling in content]


def test_a_disk_that_fills_up_is_one_line_and_the_checkpoint_before_it_stays(
    make_config: MakeConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    whole = open_run(config, cache)
    expected = list(train(whole, Checkpoints(tmp_path / "whole")))

    steps = train(open_run(config, cache), Checkpoints(tmp_path / "full"))
    next(steps)
    with monkeypatch.context() as patch:

        def full(tensors: Any, path: Path, metadata: Any) -> None:
            path.write_bytes(b"half a file")
            raise OSError(28, "No space left on device")

        patch.setattr("dsgkd.storage.checkpoint.save_file", full)
        with pytest.raises(InputError, match="no space left on the disk"):
            next(steps)
    assert {file.name for file in (tmp_path / "full").iterdir()} == {BEST, LAST}
    assert load_state(tmp_path / "full" / LAST)["progress"]["epoch"] == 1

    second = open_run(config, cache)
    after = list(train(second, Checkpoints(tmp_path / "full")))
    assert facts(after) == facts(expected[1:])
    assert_same_weights(weights(second), weights(whole))


def test_a_result_can_be_written_as_json(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    result = next(train(open_run(make_config(), cache), Checkpoints(tmp_path)))

    assert json.loads(json.dumps(asdict(result), allow_nan=False)) == asdict(result)
