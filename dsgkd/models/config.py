"""Which model is trained, and with which head."""

from dsgkd.configuration import Probability, Text, config

BUILTIN_HEADS = ("cls", "mean", "max", "words", "paper")
"""Names of heads, of which `dsgkd.models.heads` has the classes."""


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
    of the tokens beside the mean of the transferred words. `paper`: the DSG-KD reference's two
    layers. Or `package.module:Class`."""
    dropout: Probability = 0.1
    """Dropout probability of every head but `cls`, which has the architecture's."""

    def __post_init__(self) -> None:
        if self.head not in BUILTIN_HEADS:
            # Deferred: `--help` must not wait for PyTorch.
            from dsgkd.models.heads import find_head

            find_head(self.head)
