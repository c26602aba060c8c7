from dataclasses import replace

import pytest
import torch

from dsgkd.distillation.teacher import LiveTeacher
from dsgkd.errors import InputError
from dsgkd.models.taps import TapRequest, forward_with_taps

REQUEST = TapRequest((0, 2), (1,))


@pytest.mark.parametrize("autocast", [False, True])
def test_a_teacher_reads_its_own_side_in_float32_without_gradient(autocast, make_model, make_batch):
    batch, model = make_batch(), make_model()
    states = LiveTeacher(model, REQUEST, autocast).word_states(batch)
    _, expected = forward_with_taps(model, batch.teacher, REQUEST)
    tolerance = {"rtol": 0.05, "atol": 0.05} if autocast else {"rtol": 0, "atol": 0}
    for one, other in (
        (states.hidden, expected.hidden),
        (states.attention, expected.attention),
    ):
        for layer in other:
            assert one[layer].dtype == torch.float32
            assert not one[layer].requires_grad
            torch.testing.assert_close(one[layer], other[layer], **tolerance)
    assert autocast == (not torch.equal(states.hidden[2], expected.hidden[2]))


def test_notes_that_were_prepared_without_a_teacher_are_refused(make_model, make_batch):
    batch = replace(make_batch(), teacher=None)
    with pytest.raises(InputError, match="teacher: the notes were prepared without one"):
        LiveTeacher(make_model(), REQUEST).word_states(batch)
