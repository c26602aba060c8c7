import pytest
from ray.exceptions import ActorDiedError, NodeDiedError
from ray.train import PreemptionError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from dsgkd.study.backends.tune import is_of_node


class WithItsNode(ActorDiedError):
    def __str__(self):
        return "The actor died because its node has died. Node Id: 1"


class NoAnswer(Exception):
    """As Ray Train wraps what it met when it asked a worker how it was."""

    def __init__(self, failure):
        self.health_check_failure = failure


def of_train(*failures):
    return WorkerGroupError("x", {rank: NoAnswer(error) for rank, error in enumerate(failures)})


@pytest.mark.parametrize(
    ("error", "of_node"),
    [
        (ActorDiedError(), False),
        (NodeDiedError("x"), True),
        (WithItsNode(), True),
        (of_train(ActorDiedError(), ValueError()), False),
        (of_train(ValueError(), WithItsNode()), True),
        (PreemptionError(PreemptionInfo(None, {})), True),
        (None, False),
    ],
)
def test_a_worker_that_went_with_its_node_is_told_from_one_that_died(error, of_node):
    assert is_of_node(error) == of_node
