"""Invented learning curves whose optimum is known, for a search to find.

A configuration's curve rises from 0.5 to its value after the last epoch; the best value anywhere is
PEAK. How fast it rises depends on the learning rate and on alpha, so some that end well start
slowly and cross others. What is measured has noise that depends on the landscape, the
configuration and the epoch, hence is the same for whoever asks. Imports little, because every
worker imports it.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray import tune

from dsgkd.study.messages import EpochFinished, Report, TrialFinished

ParameterPoint = Mapping[str, Any]
"""Searched name -> value."""

EPOCHS = 9
"""Of a whole trial."""
FLOOR, PEAK = 0.5, 0.9
RANGES = {"encoder_lr": (5e-5, 1e-3), "classifier_lr": (3e-4, 1e-2), "alpha": (0.1, 10.0)}
"""All logarithmic."""
MAPPINGS = ("uniform", "last-1", "last-2", "first-1", "uniform+emb")
WORDS = (8, 16, 32)
DEPTHS = {"student": 4, "even": 4, "deep": 12}
"""Layers of the student and of two teachers: the mapping is asked for by the pair of depths."""
NOISE = 0.006
"""Standard deviation after many epochs; twice as much after the first."""


@dataclass(frozen=True)
class Landscape:
    """One of a family; the seed decides where the optimum lies and which choices are good."""

    seed: int

    def value(self, point: ParameterPoint) -> float:
        """Return what a configuration reaches after the last epoch, without noise."""
        centre, costs = _shape(self.seed)
        place = _place(point)
        off = {name: place[name] - centre[name] for name in RANGES}
        # A stronger teacher wants a smaller step: the two cannot be searched one by one.
        slant = off["encoder_lr"] + 0.3 * off["alpha"]
        rates = 0.30 * slant**2 + 0.06 * off["classifier_lr"] ** 2 + 0.10 * off["alpha"] ** 2
        teacher = point["teacher"]
        choices = costs[teacher] + costs[teacher, point["mapping"]] + costs[point["cs_max_len"]]
        return PEAK - rates - choices

    def curve(self, point: ParameterPoint, epoch: int) -> float:
        """Return what it has reached after an epoch, without noise."""
        place = _place(point)
        rate = 1.5 * math.exp(-0.7 * (1 - place["encoder_lr"]) - 0.5 * place["alpha"])
        climbed = (1 - math.exp(-rate * epoch)) / (1 - math.exp(-rate * EPOCHS))
        return FLOOR + (self.value(point) - FLOOR) * climbed

    def measured(self, point: ParameterPoint, epoch: int) -> float:
        """Return what is seen after an epoch."""
        text = f"{self.seed} {sorted(point.items())} {epoch}"
        noise = random.Random(hashlib.sha256(text.encode()).digest()).gauss(0, 1)
        return self.curve(point, epoch) + NOISE * (1 + 1 / epoch) * noise


def point_of(run: Any) -> dict[str, Any]:
    """Return the searched values of a `RunConfig`."""
    distillation, optimisation = run.distillation, run.optimisation
    return {
        "encoder_lr": optimisation.encoder_lr,
        "classifier_lr": optimisation.classifier_lr,
        "alpha": distillation.alpha,
        "teacher": distillation.teacher,
        "mapping": distillation.mapping,
        "cs_max_len": distillation.max_transfer_words,
    }


def steps(spec: Any) -> Iterator[Report]:
    """Be a trial of a study: one report an epoch."""
    landscape, point, best, best_epoch = Landscape(spec.run.seed), point_of(spec.run), 0.0, 0
    for epoch in range(1, EPOCHS + 1):
        score = landscape.measured(point, epoch)
        if score > best:
            best, best_epoch = score, epoch
        yield EpochFinished(
            epoch=epoch,
            score=score,
            validation={},
            best_epoch=best_epoch,
            best_objective=best,
            finished=epoch == EPOCHS,
        )
    yield TrialFinished()


class CurveActor(tune.Trainable):
    """The same trial for Tune alone."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take up a configuration."""
        self._landscape, self._point, self._epoch = Landscape(config["seed"]), config["point"], 0

    def step(self) -> dict[str, Any]:
        """Report the next epoch."""
        self._epoch += 1
        return {"score": self._landscape.measured(self._point, self._epoch)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next configuration."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Do nothing."""


@cache
def _shape(seed: int) -> tuple[dict[str, float], dict[Any, float]]:
    """Return where the optimum lies (0 to 1 in each range) and what each choice costs."""
    draw = random.Random(seed)
    centre = {name: draw.uniform(0.25, 0.75) for name in RANGES}
    costs: dict[Any, float] = {}
    teachers = [name for name in DEPTHS if name != "student"]
    costs |= dict(zip(draw.sample(teachers, 2), (0.0, 0.015)))
    costs |= dict(zip(draw.sample(WORDS, 3), (0.0, 0.005, 0.015)))
    for teacher in teachers:
        pairs = [(teacher, mapping) for mapping in draw.sample(MAPPINGS, 5)]
        costs |= dict(zip(pairs, (0.0, 0.005, 0.01, 0.02, 0.04)))
    return centre, costs


def _place(point: ParameterPoint) -> dict[str, float]:
    """Return where in its range each number lies, 0 to 1."""
    return {
        name: math.log(point[name] / low) / math.log(high / low)
        for name, (low, high) in RANGES.items()
    }
