from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dsgkd.alignment.batch import evaluation_batches
from dsgkd.data.sources import SEALED, DataConfig
from dsgkd.errors import InputError
from dsgkd.models.student import StudentConfig
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.tasks.nothing import NoTask
from dsgkd.training.config import OptimisationConfig, RunConfig, SelectionConfig, paper_preset
from dsgkd.training.loop import train
from dsgkd.training.opening import open_notes, open_run

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
    assert run.texts.lengths.max() == longest
    assert next(train(run, Checkpoints(tmp_path))).epoch == 1

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
    config = replace(make_config(), data=DataConfig(path=str(path)))

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
    distiller = run.distiller.eval()

    def losses(**padding: Any) -> torch.Tensor:
        found, lengths = [], set()
        collate = replace(run.collator(), **{"same_length": False, **padding})
        for batch in evaluation_batches(run.texts, 8, collate):
            (pair,) = batch.pairs
            taught = run.teachers[0].provider.word_states(pair)
            found.append(distiller(batch, [taught], 8.0, [pair.mask.sum()]).weighted)
            lengths |= {batch.student.input_ids.shape[1], pair.teacher.input_ids.shape[1]}
        assert (lengths == {384}) == ("pad_to" in padding)
        return torch.stack(found)

    padded = losses(pad_to=384)
    assert padded[:, 2].gt(0).any()
    torch.testing.assert_close(losses(same_length=True), padded, rtol=1e-5, atol=1e-9)


def test_the_papers_criteria_need_equal_widths_and_as_many_heads_on_both_sides(
    make_config: MakeConfig, cache: Path
) -> None:
    paper = replace(paper_preset(make_config("student", "teacher")), max_length=48)
    attention = replace(paper.distillation, hidden="projected")

    with pytest.raises(InputError, match="student width 16 and teacher width 24"):
        open_run(paper, cache)
    with pytest.raises(InputError, match="2 attention heads and teacher 3"):
        open_run(replace(paper, distillation=attention), cache)


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

    result = next(train(open_run(config, cache), Checkpoints(tmp_path)))

    # A student that knows nothing of the teacher's standardised states has a loss of one.
    assert result.raw["hidden"] < 0.9


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
        lambda: RunConfig(selection=SelectionConfig(objective="auc")),
        lambda: RunConfig(selection=SelectionConfig(stop_when_stale=("f2",))),
        lambda: RunConfig(max_length=7),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        wrong()


def test_a_run_without_a_task_and_without_a_term_is_refused(
    make_config: MakeConfig, cache: Path
) -> None:
    terms_alone = {"task": NoTask(), "selection": {"objective": "loss", "stop_when_stale": ()}}
    for teacher, alpha in (("", 1.0), ("teacher", 0.0)):
        config = make_config(teacher=teacher, distillation={"alpha": alpha}, **terms_alone)
        with pytest.raises(InputError, match="no task, and no term either"):
            open_run(config, cache)


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
    spoilt = replace(config, data=DataConfig(path=str(path)))

    whole = open_run(config, cache)
    sealed = open_run(replace(spoilt, splits=SEALED), cache)

    notes = [open_notes(each.config, cache) for each in (sealed, whole)]
    assert set(notes[0].splits) == set(SEALED)
    assert len(notes[1].split("test")) == 9
    assert sealed.fingerprint == whole.fingerprint
    assert sealed.label_names == whole.label_names
    with pytest.raises(InputError):
        open_run(spoilt, cache)


def test_a_run_cannot_read_the_test_split_without_those_before_it() -> None:
    with pytest.raises(InputError, match="give the first ones of train, validation, test"):
        RunConfig(splits=("train", "test"))
