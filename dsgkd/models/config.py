"""Which model is trained, and with which head."""

from dsgkd.configuration import Probability, Text, config
from dsgkd.models.names import HEADS
from dsgkd.plugins import find


@config
class StudentConfig:
    """The model that is trained.

    Raises:
        InputError: there is no such head.
    """

    model: Text = "tiny-ko"
    """Name of the hub, hub id or local folder."""
    head: Text = "cls"
    """`cls`: the architecture's own head and pooler. `mean` or `max` of the tokens. `words`: mean
    of the tokens beside the mean of the transferred words. `projected`: mean of the tokens beside
    mean and maximum of the words, seen through the projection that distillation has learnt.
    `paper`: the DSG-KD reference's two layers. Or `package.module:Class`."""
    dropout: Probability = 0.1
    """Dropout probability of every head but `cls`, which has the architecture's."""

    def __post_init__(self) -> None:
        if ":" not in self.head:  # a plug-in is imported when it is built
            find("head", self.head, HEADS)
