"""A task that is written outside the package, in one file: here to tell how long a note is."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from watched_runs import assert_resumes, trained

from dsgkd.alignment.batch import Batch, Movable
from dsgkd.configuration import structure
from dsgkd.errors import InputError
from dsgkd.models.hub import load_model
from dsgkd.tasks import Task
from dsgkd.training.config import RunConfig
from dsgkd.training.evaluation import evaluate_validation, predict
from dsgkd.training.loop import new_optimizer
from dsgkd.training.opening import open_run

KIND = "test_plugin_task:Length"


@dataclass(frozen=True, eq=False)
class Lengths(Movable):
    """How long each text is, in `unit` tokens: [batch] float32."""

    values: Tensor


class Regressor(nn.Module):
    """An encoder with one number as its output."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.base_model, self.out = encoder, nn.Linear(width, 1)

    def forward(self, input_ids: Tensor, attention_mask: Any, output_hidden_states: bool) -> Any:
        output = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )
        number = self.out(output.pooler_output)[:, 0]
        return SimpleNamespace(number=number, hidden_states=output.hidden_states)


@dataclass(frozen=True)
class Length(Task):
    """Every text, labelled or not, has a length."""

    kind: str = KIND
    unit: float = 20.0

    loss_name: ClassVar[str] = "mse"
    measures: ClassVar[Mapping[str, str]] = {"loss": "minimise", "error": "minimise"}
    objective: ClassVar[str] = "error"

    def new_student(self, config: Any, reference: str, classes: int, attention: str) -> nn.Module:
        encoder = load_model(reference, attention)
        return Regressor(encoder, encoder.config.hidden_size)

    def prepare(self, batch: Batch, texts: Any, seed: tuple[int, ...]) -> Batch:
        values = torch.from_numpy(texts.lengths[batch.rows.numpy()] / self.unit).float()
        return Batch(**{**vars(batch), "targets": Lengths(values)})

    def examples(self, batch: Batch) -> Tensor:
        return torch.tensor(float(len(batch)))

    def loss(self, output: Any, batch: Batch, count: Any) -> Tensor:
        return (output.number[: len(batch)] - batch.targets.values).square().sum() / count

    def predict(self, output: Any, batch: Batch) -> Tensor:
        return output.number[: len(batch), None].float()

    def fit(self, predicted: Any, validation: Any, training: Any) -> dict[str, float]:
        return {"bias": float((predicted[:, 0] - validation.lengths / self.unit).mean())}

    def evaluate(self, predicted: Any, texts: Any, fitted: Mapping[str, float]) -> dict[str, float]:
        missed = predicted[:, 0] - texts.lengths / self.unit
        return {"loss": float((missed**2).mean()), "error": float(np.abs(missed).mean())}

    def rows(self, predicted: Any, texts: Any) -> Iterator[dict[str, Any]]:
        for number in predicted[:, 0].tolist():
            yield {"number": number}


@pytest.fixture
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    return make_config(
        "still-student",
        "teacher",
        optimisation={"epochs": 6},
        selection={"objective": "error", "stop_when_stale": ("loss",)},
        task=Length(),
    )


def test_a_task_of_ones_own_is_trained_measured_and_selected_by(
    config: RunConfig, cache: Path, tmp_path: Path
) -> None:
    run, results = trained(config, cache, tmp_path)

    assert list(results[0].weighted) == ["mse", "hidden"]
    assert results[-1].weighted["mse"] < 0.5 * results[0].weighted["mse"]
    assert results[0].validation.keys() == {"loss", "error", "bias"}
    errors = [result.validation["error"] for result in results]
    assert results[-1].best_objective == min(errors)
    assert results[-1].best_epoch == 1 + errors.index(min(errors))
    predicted = predict(run, run.validation)
    assert predicted.shape == (17, 1)
    assert evaluate_validation(run).measured == results[-1].validation
    assert [row["number"] for row in run.task.rows(predicted, run.validation)] == predicted[
        :, 0
    ].tolist()


def test_its_head_learns_at_the_rate_of_heads(config: RunConfig, cache: Path) -> None:
    run = open_run(config, cache)
    rates = {
        id(value): group["lr"]
        for group in new_optimizer(run).param_groups
        for value in group["params"]
    }
    assert rates[id(run.student.out.weight)] == config.optimisation.classifier_lr
    word_vectors = run.student.base_model.embeddings.word_embeddings.weight
    assert rates[id(word_vectors)] == config.optimisation.encoder_lr


@pytest.mark.slow
def test_it_is_resumed_to_the_bit(config: RunConfig, cache: Path, tmp_path: Path) -> None:
    assert_resumes(config, cache, tmp_path, [3, 12])


def test_it_comes_back_from_what_was_written_down(config: RunConfig) -> None:
    written = json.loads(json.dumps(asdict(config)))
    assert written["task"] == {"kind": KIND, "unit": 20.0}

    again = structure(RunConfig, written)
    assert again == config
    assert isinstance(again.task, Task)
    assert structure(RunConfig, written | {"task": {"kind": KIND, "unit": 5.0}}).task.unit == 5.0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "regression"}, "task: 'regression' unknown"),
        ({"kind": "nowhere:Length"}, "task: 'nowhere:Length' cannot be imported"),
        ({"kind": f"{KIND}s2"}, "cannot be imported"),
        ({"kind": KIND, "units": 3}, "has no such field"),
    ],
)
def test_a_task_that_is_not_there_is_one_line(
    config: RunConfig, task: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        structure(RunConfig, asdict(config) | {"task": task})


def test_a_measure_of_another_task_is_refused(make_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(InputError, match="'auroc' unknown: choose of loss, error"):
        make_config(task=Length())
