"""Which model is trained, and with which head."""

from typing import Literal

from dsgkd.configuration import Probability, Text, config

Head = Literal["standard", "paper"]


@config
class StudentConfig:
    """The model that is trained."""

    model: Text = "tiny-ko"
    """Name of the zoo, hub id or local folder."""
    head: Head = "standard"
    """`standard`: the architecture's own head. `paper`: pooler, then two linear layers."""
    dropout: Probability = 0.1
    """Dropout probability of the `paper` head."""
