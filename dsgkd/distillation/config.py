"""What is transferred from which teachers, and how strongly."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Le

from dsgkd.alignment.words import TERM
from dsgkd.configuration import Count, Text, Weight, config, shown
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.errors import InputError

TeacherWeights = Literal["pretrained", "random"]
TeacherStore = Literal["auto", "live", "stored"]
Weights = Literal["raw", "relative"]
TeacherStates = Literal["context", "prototypes"]

OWN = "own"
"""In place of a path: the text from which a teacher was pre-trained here."""

_TEACHER = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)\*)?([^*]+)")


class TeacherChoice(NamedTuple):
    """One teacher of a run."""

    model: str
    weight: float
    """Its share of alpha and beta."""
    mapping: LayerMapping


class TermConfig(NamedTuple):
    """One term of the loss, for each teacher."""

    name: str
    """Its name in the ledger."""
    criterion: str
    weight: float


@config
class DistillationConfig:
    """What is transferred from the teachers to the student, and how strongly."""

    teacher: Text = ""
    """Name of the hub, hub id or local folder; several as `a+b` or `0.7*a+0.3*b`; empty: no
    teacher."""
    teacher_weights: TeacherWeights = "pretrained"
    """`random`: the same architecture with random weights, the control that knows nothing."""
    shuffled: bool = False
    """Every word always gets the states of one other word: the control in which what the teacher
    says of the words is consistent, and wrong."""
    hidden: Text = "projected"
    """Criterion on hidden states, weighted by alpha: projected, paper_hidden, or
    package.module:Class."""
    attention: Text = "word_attention"
    """Criterion on attention, weighted by beta: word_attention, paper_attention, or
    package.module:Class."""
    mapping: Text = "uniform"
    """Layer mapping, in the notation of `LayerMapping`; one for each teacher, separated by
    semicolons, or one for all."""
    alpha: Weight = 1.0
    """Weight of the criterion on hidden states."""
    beta: Weight = 0.0
    """Weight of the criterion on attention."""
    terms: tuple[Text, ...] = ()
    """Further terms of the loss, each as criterion=weight."""
    weights: Weights = "raw"
    """`raw`: alpha, beta and the weights of `terms` multiply their loss; `relative`: they multiply
    it on a scale on which 1 is a gradient on the encoder as large as the task's, measured when
    training starts."""
    max_transfer_words: Count = 32
    """At most this many words of a text are transferred (the paper's cs_max_len)."""
    calibration_words: Annotated[int, Ge(2), Le(10**7)] = 2000
    """Words on which states are standardised and projections initialised."""
    teacher_store: TeacherStore = "auto"
    """`stored`: the teacher reads every text once, and its states are kept; `live`: it reads
    every batch; `auto`: stored where it is worth it and fits the budget."""

    teacher_states: TeacherStates = "context"
    """`context`: a word's states in the text that the student reads; `prototypes`: its mean state
    over sentences of the teacher's own language, the same in every text."""
    prototype_corpus: Text = ""
    """Where these sentences are: a file or folder of text; `own`: the text from which a teacher was
    pre-trained here; empty: carrier sentences only."""
    prototype_sentences: Count = 20
    """Occurrences of a word in the corpus that a teacher reads at most."""
    carriers: tuple[Text, ...] = ("The patient has {term}.", "History of {term}.", "{term}")
    """Sentences for words that are not in the corpus."""

    def __post_init__(self) -> None:
        _ = self.choices, self.weighted
        lacking = [sentence for sentence in self.carriers if TERM not in sentence]
        if lacking or not self.carriers:
            what = f"no {TERM} in {shown(lacking[0])}" if lacking else "none is given"
            raise InputError("carriers", what, f"write such as 'The patient has {TERM}.'")

    @property
    def choices(self) -> tuple[TeacherChoice, ...]:
        """The teachers, each with its share and its layer mapping.

        Raises:
            InputError: the notation cannot be read.
        """
        teachers = split_teachers(self.teacher)
        mappings = [LayerMapping.parse(part) for part in self.mapping.split(";")]
        if len(mappings) == 1:
            mappings *= len(teachers)
        if len(mappings) != len(teachers) and teachers:
            what = f"{len(mappings)} for {len(teachers)} teachers"
            raise InputError("layer mapping", what, "give one, or one for each teacher")
        return tuple(
            TeacherChoice(model, weight, mapping)
            for (model, weight), mapping in zip(teachers, mappings)
        )

    @property
    def weighted(self) -> tuple[TermConfig, ...]:
        """The terms with a weight above zero: those of alpha and beta, then the others.

        Raises:
            InputError: a term cannot be read.
        """
        found = [
            TermConfig("hidden", self.hidden, self.alpha),
            TermConfig("attention", self.attention, self.beta),
        ]
        for text in self.terms:
            criterion, _, value = text.rpartition("=")
            try:
                weight = float(value)
            except ValueError:
                weight = -1.0
            if not criterion or not 0 <= weight < float("inf"):
                raise InputError("terms", f"'{text}' cannot be read", "write criterion=weight")
            found.append(TermConfig(re.split(r"[.:]", criterion)[-1].lower(), criterion, weight))
        names = [term.name for term in found]
        if len(set(names)) < len(names):
            raise InputError("terms", "two terms have one name", "give each criterion once")
        return tuple(term for term in found if term.weight > 0)

    @property
    def distils(self) -> bool:
        """Whether any term needs a teacher."""
        return bool(self.teacher and self.weighted)


def split_teachers(text: str) -> tuple[tuple[str, float], ...]:
    """Return the models in `a`, `a+b` or `0.7*a+0.3*b`, and their shares, which add up to one.

    A local path may hold a plus sign, if nothing else is named beside it.

    Raises:
        InputError: a name is missing or given twice, or a share is no number.
    """
    if not text:
        return ()
    if Path(text.removeprefix("corpus:")).expanduser().exists():
        return ((text, 1.0),)
    found = []
    for part in text.split("+"):
        match = _TEACHER.fullmatch(part.strip())
        if match is None:
            raise InputError("teacher", f"'{text}' cannot be read", "write a+b or 0.7*a+0.3*b")
        found.append((match[2].strip(), float(match[1]) if match[1] else 1.0))
    total = sum(weight for _, weight in found)
    if total <= 0 or len({model for model, _ in found}) < len(found):
        raise InputError("teacher", f"'{text}' cannot be used", "give different ones, with shares")
    return tuple((model, weight / total) for model, weight in found)
