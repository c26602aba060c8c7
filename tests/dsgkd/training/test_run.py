from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dsgkd.alignment.batches import training_batches
from dsgkd.data.sources import SEALED, DataConfig
from dsgkd.errors import InputError
from dsgkd.models.student import StudentConfig
from dsgkd.training.loop import train
from dsgkd.training.run import (
    OptimisationConfig,
    RunConfig,
    SelectionConfig,
    open_run,
    paper_preset,
)

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("student", "longest"),
    [("student", 64), ("roberta", 62), ("camembert", 62)],
    ids=["BERT", "RoBERTa", "CamemBERT"],
)
def test_a_student_reads_as_many_tokens_as_it_has_positions_and_no_more(
    make_config: MakeConfig, cache: Path, tmp_path: Path, student: str, longest: int
) -> None:
    run = open_run(make_config(student, max_length=longest), cache)
    assert run.notes.split("train").lengths.max() == longest
    assert next(train(run, tmp_path)).epoch == 1

    with pytest.raises(InputError, match=f"{student}: reads {longest} tokens, not {longest + 1}"):
        open_run(make_config(student, max_length=longest + 1), cache)


def test_a_student_that_reads_less_than_its_teacher_is_refused_before_it_reads_anything(
    make_config: MakeConfig, cache: Path
) -> None:
    with pytest.raises(InputError, match="short-student: reads 40 tokens, not 48"):
        open_run(make_config("short-student", "teacher"), cache)


def test_a_teacher_that_reads_less_than_its_student_is_refused(
    make_config: MakeConfig, cache: Path
) -> None:
    with pytest.raises(InputError, match="short-student: reads 40 tokens, not 48"):
        open_run(make_config("student", "short-student"), cache)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(make_config: MakeConfig, cache: Path) -> None:
    with pytest.raises(InputError, match="device: no GPU is visible"):
        open_run(make_config(device="cuda"), cache)


def test_a_measure_that_the_validation_labels_leave_undefined_is_refused(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "notes.csv"
    rows = ["train,가 fever,0", "train,나 cough,1", "validation,다 rash,1", "test,라 fever,0"]
    path.write_text("\n".join(["split,text,label", *rows]))
    config = replace(make_config(), data=DataConfig(str(path)))

    with pytest.raises(InputError, match="one class only, so 'auroc' is undefined"):
        open_run(config, cache)
    open_run(replace(config, selection=SelectionConfig(objective="loss")), cache)


@torch.no_grad()
def test_padding_to_the_papers_length_changes_nothing_but_the_time(
    make_config: MakeConfig, cache: Path
) -> None:
    paper = paper_preset(make_config("long-student", "long-teacher"))
    live = replace(paper.distillation, teacher_store="live")
    run = open_run(replace(paper, distillation=live), cache)
    distiller, notes = run.distiller.eval(), run.notes.split("train")

    def losses(**padding: Any) -> torch.Tensor:
        found, lengths = [], set()
        for batch in training_batches(notes, 8, 32, 0, 0, **padding):
            taught = run.teacher.answers.word_states(batch)
            found.append(torch.stack(distiller(batch, taught, 8.0, batch.word_mask.sum())))
            lengths |= {batch.student.input_ids.shape[1], batch.teacher.input_ids.shape[1]}
        assert (lengths == {384}) == ("pad_to" in padding)
        return torch.stack(found)

    padded = losses(pad_to=384)
    assert padded[:, 2].gt(0).any()
    torch.testing.assert_close(losses(same_length=True), padded, rtol=1e-5, atol=1e-9)


def test_the_papers_attention_needs_as_many_heads_on_both_sides(
    make_config: MakeConfig, cache: Path
) -> None:
    paper = replace(paper_preset(make_config("student", "teacher")), max_length=48)

    with pytest.raises(InputError, match="2 attention heads and teacher 3"):
        open_run(paper, cache)


def test_the_papers_preset_is_the_papers(make_config: MakeConfig) -> None:
    preset = paper_preset(RunConfig(student=StudentConfig(dropout=0.3), seed=4))

    assert (preset.distillation.alpha, preset.distillation.beta) == (0.6, 0.2)
    assert (preset.max_length, preset.words.kind) == (384, "paper")
    assert (preset.student.head, preset.student.dropout, preset.seed) == ("paper", 0.3, 4)
    assert preset.optimisation.warmup_share == 0.25
    assert preset.selection.patience == 5


def test_the_projections_start_where_ridge_regression_puts_them(
    make_config: MakeConfig, cache: Path, tmp_path: Path
) -> None:
    frozen = {"encoder_lr": 1e-9, "projection_lr": 1e-9}
    config = make_config("still-student", "teacher", optimisation=frozen)

    result = next(train(open_run(config, cache), tmp_path))

    # A student that knows nothing of the teacher's standardised states has a loss of one.
    assert result.train["loss_hidden"] < 0.9


def test_the_same_run_opens_with_the_same_weights(make_config: MakeConfig, cache: Path) -> None:
    config = make_config(teacher="teacher")
    states = []
    for _ in range(2):
        torch.rand(3)
        states.append(open_run(config, cache).distiller.state_dict())

    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OptimisationConfig(epochs=0),
        lambda: OptimisationConfig(batch_size=0),
        lambda: OptimisationConfig(encoder_lr=0.0),
        lambda: OptimisationConfig(projection_lr=float("nan")),
        lambda: SelectionConfig(objective="auc"),
        lambda: SelectionConfig(stop_when_stale=("f2",)),
        lambda: RunConfig(max_length=7),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        wrong()


def test_a_run_reads_the_splits_that_it_names_and_no_other(
    make_config: Callable[..., RunConfig], cache: Path, tmp_path: Path
) -> None:
    config = make_config(teacher="teacher")
    path = tmp_path / "notes.csv"
    lines = Path(config.data.path).read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join(",,no label at all,test" if line.endswith(",test") else line for line in lines),
        encoding="utf-8",
    )
    spoilt = replace(config, data=DataConfig(str(path)))

    whole = open_run(config, cache)
    sealed = open_run(replace(spoilt, splits=SEALED), cache)

    assert set(sealed.notes.splits) == set(SEALED)
    assert len(whole.notes.split("test")) == 9
    assert sealed.fingerprint == whole.fingerprint
    assert sealed.label_names == whole.label_names
    with pytest.raises(InputError):
        open_run(spoilt, cache)


def test_a_run_cannot_read_the_test_split_without_those_before_it() -> None:
    with pytest.raises(InputError, match="give the first ones of train, validation, test"):
        RunConfig(splits=("train", "test"))
