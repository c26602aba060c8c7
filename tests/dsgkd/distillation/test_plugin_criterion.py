"""A criterion of the user's own, a class in a file of their own, chosen by name."""

import pytest
import torch
from distilling import distiller_of, losses_of
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from dsgkd.distillation.config import DistillationConfig
from dsgkd.distillation.criteria import Criterion
from dsgkd.distillation.distiller import teacher_request
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, WordStates
from dsgkd.storage.checkpoint import Checkpoints
from dsgkd.training.loop import train
from dsgkd.training.opening import open_run

NAME = "test_plugin_criterion:Norms"


class Norms(Criterion):
    """A word's state shall be as long as the teacher's, after a learned scale."""

    def __init__(self, pairs, student, teacher, max_length) -> None:
        super().__init__(pairs, student, teacher, max_length)
        self.scale = torch.nn.Parameter(torch.ones(()))

    @classmethod
    def requests(cls, pairs) -> tuple[TapRequest, TapRequest]:
        ours, theirs = pairs[-1]
        return TapRequest((ours,)), TapRequest((theirs,))

    def calibrate(self, student: WordStates, teacher: WordStates) -> None:
        ours, theirs = (next(iter(states.hidden.values())) for states in (student, teacher))
        assert ours.ndim == theirs.ndim == 2
        self.scale.copy_(theirs.norm(dim=-1).mean() / ours.norm(dim=-1).mean())

    def forward(self, student, teacher, mask, count) -> Tensor:
        ours, theirs = self.pairs[-1]
        gap = self.scale * student.hidden[ours].norm(dim=-1) - teacher.hidden[theirs].norm(dim=-1)
        return (gap.square() * mask).sum() / count


@pytest.fixture
def make_distiller(make_model):
    def make(config):
        student = make_model(auto_class=AutoModelForSequenceClassification)
        return distiller_of(config, student, make_model(seed=1, hidden_size=48))

    return make


def by_hand(distiller, teachers, batch) -> Tensor:
    (pair,) = batch.pairs
    side, spans = batch.student, pair.student.spans
    states = distiller.student(
        side.input_ids, attention_mask=side.attention_mask, output_hidden_states=True
    ).hidden_states[3]
    theirs, total = teachers[0].word_states(pair).hidden[3], 0.0
    for text, word in pair.mask.nonzero().tolist():
        start, end = spans[text, word].tolist()
        length = states[text, start:end].mean(0).norm()
        total += (length - theirs[text, word].norm()) ** 2
    return total / pair.mask.sum()


def test_it_takes_the_place_of_the_criterion_on_hidden_states(make_distiller, make_batch):
    config = DistillationConfig("teacher", hidden=NAME, alpha=0.5)
    distiller, teachers = make_distiller(config)
    batch = make_batch()
    losses = losses_of(distiller, teachers, batch)
    assert list(losses) == ["ce", "hidden"]
    torch.testing.assert_close(losses["hidden"], 0.5 * by_hand(distiller, teachers, batch))
    sum(losses.values()).backward()
    assert distiller.terms[0].criterion.scale.grad != 0
    assert teacher_request(config, ((1, 2), (3, 3))) == TapRequest((3,))


def test_it_is_a_further_term_under_its_own_name(make_distiller, make_batch):
    config = DistillationConfig("teacher", beta=2.0, terms=(f"{NAME}=0.5",))
    distiller, teachers = make_distiller(config)
    batch = make_batch()
    losses = losses_of(distiller, teachers, batch)
    assert list(losses) == ["ce", "hidden", "attention", "norms"]
    torch.testing.assert_close(losses["norms"], 0.5 * by_hand(distiller, teachers, batch))


def test_it_starts_from_the_sample_of_words(make_distiller, make_batch):
    config = DistillationConfig("teacher", hidden=NAME)
    distiller, teachers = make_distiller(config)
    distiller.calibrate([make_batch((5, 4, 3))], teachers, 10)
    assert distiller.terms[0].criterion.scale != 1


def test_a_run_reports_its_raw_and_its_weighted_value(make_config, cache, tmp_path):
    config = make_config("student", "teacher", {"terms": (f"{NAME}=0.25",)}, {"epochs": 1})
    (result,) = train(open_run(config, cache), Checkpoints(tmp_path))
    assert list(result.raw) == list(result.weighted) == ["ce", "hidden", "norms"]
    assert result.raw["norms"] > 0
    assert result.weighted["norms"] == pytest.approx(0.25 * result.raw["norms"])
    assert result.loss == pytest.approx(sum(result.weighted.values()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": "projectd"}, "criterion: 'projectd' unknown: choose of projected, "),
        ({"attention": "nosuch:Thing"}, "criterion: 'nosuch:Thing' cannot be imported"),
        ({"terms": ("test_plugin_criterion:Gone=1",)}, "criterion: .* cannot be imported"),
    ],
)
def test_a_criterion_that_is_not_there_is_said_in_one_line(settings, message, make_distiller):
    with pytest.raises(InputError, match=rf"^{message}[^\n]*$"):
        make_distiller(DistillationConfig("teacher", beta=1.0, **settings))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (("projected",), "terms: 'projected' cannot be read: write criterion=weight"),
        (("=1",), "terms: '=1' cannot be read"),
        (("projected=-1",), "terms: 'projected=-1' cannot be read"),
        (("projected=nan",), "terms: 'projected=nan' cannot be read"),
        (("a.b:Norms=1", "c:norms=0"), "terms: two terms have one name"),
    ],
)
def test_terms_that_cannot_be_read_are_said_in_one_line(terms, message):
    with pytest.raises(InputError, match=rf"^{message}[^\n]*$"):
        DistillationConfig("teacher", terms=terms)
