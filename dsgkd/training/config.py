"""Everything that decides the outcome of one run."""

from dataclasses import field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator

from dsgkd.alignment.words import WordRule
from dsgkd.configuration import (
    Count,
    LearningRate,
    Name,
    NonNegative,
    Positive,
    Seed,
    Share,
    Text,
    Whole,
    config,
)
from dsgkd.data.config import SPLITS, DataConfig, check_open
from dsgkd.data.transfer_set import TransferConfig
from dsgkd.data.world import WorldConfig
from dsgkd.distillation.config import DistillationConfig
from dsgkd.errors import InputError
from dsgkd.models.config import StudentConfig
from dsgkd.tasks import Classification, MaskedLanguageModel, NoTask, Task, task_of

Precision = Literal["auto", "fp32", "bf16"]
AnyTask = Annotated[Any, BeforeValidator(task_of)]
"""A task, or what was written down of one."""


@config
class OptimisationConfig:
    """How the student is trained: AdamW, linear warm-up and decay."""

    epochs: Count = 8
    """Passes over the transfer set at most; with `steps`, evaluations on the way."""
    steps: Whole = 0
    """Optimisation steps in all; 0: as many as the epochs take."""
    batch_size: Count = 32
    """Texts in a step, over all workers."""
    encoder_lr: LearningRate = 1e-4
    """Peak learning rate of the encoder."""
    classifier_lr: LearningRate = 1e-3
    """Peak learning rate of the task's head."""
    projection_lr: LearningRate = 1e-3
    """Peak learning rate of what the criteria learn, such as projections."""
    weight_decay: Annotated[float, Ge(0), Le(10)] = 0.01
    """AdamW's decay; none on biases and normalisation weights."""
    adam_epsilon: Positive = 1e-8
    """AdamW's epsilon."""
    warmup_share: Share = 0.1
    """Share of all steps in which the learning rate rises."""
    clip: Literal["global", "group"] = "global"
    """What the largest norm holds for: the whole gradient, or those of encoder, head and criteria
    each."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    probe: bool = False
    """Fit the head on the frozen encoder first, as an epoch before the others (linear probing, then
    fine-tuning: Kumar et al., arXiv 2202.10054); for heads with one linear layer."""
    dropout: bool = True
    """Drop units of the student while it is trained."""
    precision: Precision = "auto"
    """`auto`: bf16 autocast where the hardware computes it, else float32."""
    evaluation_batch_size: Whole = 0
    """Texts in a step of evaluation, sorted by length; 0: 32 on a CPU, 256 on a GPU."""
    checkpoint_steps: Whole = 0
    """Also keep a checkpoint every so many steps within an epoch; 0: at its end only."""
    checkpoint_seconds: NonNegative = 0.0
    """Also keep one when so many seconds have passed since the last; 0: not."""

    @property
    def most_epochs(self) -> int:
        """Epochs that are evaluated at most, the probe among them."""
        return self.epochs + self.probe


@config
class SelectionConfig:
    """Which epoch's weights are kept, and when training stops early."""

    objective: Text = "auroc"
    """The validation measure that chooses weights and configurations."""
    patience: Whole = 5
    """Epochs without improvement before a measure has run out."""
    stop_when_stale: tuple[Text, ...] = ("f1", "brier", "loss")
    """Training stops when all of these have run out (the paper's three); none: never."""
    stuck_epoch: Whole = 3
    """A run of which no epoch was better than chance by this one (or by its last) is reported as
    stuck; 0: none is."""

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that decide something."""
        return (self.objective, *self.stop_when_stale)


@config
class LinkConfig:
    """A run that adapts the student before the next one trains it further."""

    name: Name
    """For people, such as `adapt`."""
    task: AnyTask
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    patience: Whole = 0
    """Stop after so many evaluations in a row without improvement; 0: never."""


@config
class AdaptationConfig:
    """The first run of a recipe: the student is adapted to the transfer set, without labels.

    What it is matched with, which texts it reads and how the models are cut off is the run's own.
    """

    steps: Whole = 0
    """Optimisation steps; 0: no adaptation."""
    task: Literal["none", "masked_lm"] = "none"
    """`none`: the terms alone train the student; `masked_lm`: it learns to fill masks as well, or,
    without a teacher, only that."""
    mix: Text = ""
    """Weights of the sources in a batch, such as unlabelled=4,glossary=1; empty: the run's."""
    batch_size: Count = 32
    """Texts in a step, over all workers."""
    lr: LearningRate = 5e-4
    """Peak learning rate of the student."""
    projection_lr: LearningRate = 2e-3
    """Peak learning rate of what the criteria learn, such as projections."""
    evaluations: Annotated[int, Ge(1), Le(1000)] = 5
    """How often it is judged on held-out texts; the weights of the best time are kept."""
    patience: Count = 2
    """Stop after so many evaluations in a row without improvement."""
    dropout: bool = False
    """Drop units of the student."""


@config
class RunConfig:
    """A student, a task, a transfer set and terms."""

    data: DataConfig = field(default_factory=DataConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    words: WordRule = field(default_factory=WordRule)
    student: StudentConfig = field(default_factory=StudentConfig)
    task: AnyTask = field(default_factory=Classification)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    links: tuple[LinkConfig, ...] = ()
    """Runs between the adaptation and this one, each of which starts from the student of the one
    before."""
    splits: tuple[Text, ...] = SPLITS
    """Splits of the notes that are read at all; a study leaves `test` out until its seal is
    broken. Does not enter into training."""
    max_length: Annotated[int, Ge(8), Le(10**6)] = 128
    """Tokens of a text that are read, for any model."""
    seed: Seed = 17
    """Decides the head's first weights, the order of texts and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU if the process can see one."""

    def __post_init__(self) -> None:
        check_open(self.splits)
        task: Task = self.task
        for measure in self.selection.measures:
            if measure not in task.measures:
                known = ", ".join(task.measures)
                raise InputError("measure", f"'{measure}' unknown", f"choose of {known}")
        _ = self.chain

    @property
    def chain(self) -> tuple[LinkConfig, ...]:
        """The runs before this one: the adaptation, then the links."""
        adapt = self.adaptation
        if not adapt.steps:
            return self.links
        task = MaskedLanguageModel() if adapt.task == "masked_lm" else NoTask()
        link = LinkConfig(
            "adapt",
            task,
            self._alone if task.idle else self.distillation,
            replace(self.transfer, mix=adapt.mix or self.transfer.mix),
            replace(
                self.optimisation,
                epochs=min(adapt.evaluations, adapt.steps),
                steps=adapt.steps,
                batch_size=adapt.batch_size,
                encoder_lr=adapt.lr,
                classifier_lr=adapt.lr,
                projection_lr=adapt.projection_lr,
                probe=False,
                dropout=adapt.dropout,
            ),
            adapt.patience,
        )
        return (link, *self.links)

    @property
    def _alone(self) -> DistillationConfig:
        """The terms as they train without a task, where only their proportions count."""
        given = self.distillation
        if given.beta or given.terms or not given.alpha:
            return given
        return replace(given, alpha=1.0, weights="raw")


def paper_preset(run: RunConfig) -> RunConfig:
    """Return the run with the choices of the DSG-KD paper and its reference (arXiv 2409.14904)."""
    return replace(
        run,
        words=WordRule("paper"),
        student=replace(run.student, head="paper"),
        task=Classification(threshold="prevalence"),
        distillation=replace(
            run.distillation,
            hidden="paper_hidden",
            attention="paper_attention",
            mapping="uniform+emb",
            alpha=0.6,
            beta=0.2,
            max_transfer_words=32,
        ),
        optimisation=replace(
            run.optimisation,
            epochs=15,
            batch_size=32,
            encoder_lr=1e-4,
            classifier_lr=5e-3,
            warmup_share=0.25,
        ),
        selection=replace(run.selection, objective="f1"),
        max_length=384,
    )
