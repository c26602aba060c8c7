"""What is one run, and what does it need before its first step?"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from dsgkd.alignment.batches import training_batches
from dsgkd.alignment.encoding import EncodedNotes
from dsgkd.alignment.words import WordRule
from dsgkd.data.identity import id_key
from dsgkd.data.sources import SEALED, SPLITS, DataConfig, Notes, check_open, read_notes
from dsgkd.data.world import WorldConfig
from dsgkd.distillation.distiller import DistillationConfig, Distiller
from dsgkd.distillation.mapping import LayerMapping
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.teachers.shuffled import ShuffledTeacher
from dsgkd.distillation.teachers.source import (
    RunTeacher,
    TeacherSource,
    check_length,
    open_teacher,
)
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.hub import depth, load_tokenizer
from dsgkd.models.on_the_fly import model_reference
from dsgkd.models.student import StudentConfig, encoder_of, new_student
from dsgkd.storage.checkpoint import random_state, restore_random_state, seed_everything
from dsgkd.tasks.measures import MEASURES, ThresholdRule, measures

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class OptimisationConfig:
    """How the student is trained: AdamW, linear warm-up and decay."""

    epochs: int = 8
    """Passes over the training notes at most."""
    batch_size: int = 32
    """Notes in a step, over all workers."""
    encoder_lr: float = 1e-4
    """Peak learning rate of the encoder."""
    classifier_lr: float = 1e-3
    """Peak learning rate of the classification head."""
    projection_lr: float = 1e-3
    """Peak learning rate of the student-to-teacher projections."""
    weight_decay: float = 0.01
    """AdamW's decay; none on biases and normalisation weights."""
    adam_epsilon: float = 1e-8
    """AdamW's epsilon."""
    warmup_share: float = 0.1
    """Share of all steps in which the learning rate rises, in [0, 1]."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "auto"
    """`auto`: bf16 autocast where the hardware computes it, else float32."""
    evaluation_batch_size: int = 0
    """Notes in a step of evaluation, sorted by length; 0: 32 on a CPU, 256 on a GPU."""
    checkpoint_steps: int = 0
    """Also keep a checkpoint every so many steps within an epoch; 0: at its end only."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("evaluation_batch_size", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    name, f"{getattr(self, name)} is too small", f"give {least} or more"
                )
        for name in ("encoder_lr", "classifier_lr", "projection_lr"):
            if not getattr(self, name) > 0:
                raise InputError(
                    name, f"{getattr(self, name)} is no learning rate", "give more than 0"
                )


@dataclass(frozen=True)
class SelectionConfig:
    """Which epoch's weights are kept, and when training stops early."""

    objective: str = "auroc"
    """The validation measure that chooses weights and configurations."""
    patience: int = 5
    """Epochs without improvement before a measure has run out."""
    stop_when_stale: tuple[str, ...] = ("f1", "brier", "loss")
    """Training stops when all of these have run out (the paper's three)."""
    threshold: ThresholdRule = "validation"
    """Binary threshold: best F1 on validation, or the share of positives in training (paper)."""

    def __post_init__(self) -> None:
        for measure in (self.objective, *self.stop_when_stale):
            if measure not in MEASURES:
                raise InputError(
                    "measure", f"'{measure}' unknown", f"choose of {', '.join(MEASURES)}"
                )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of one run."""

    data: DataConfig = field(default_factory=DataConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    words: WordRule = field(default_factory=WordRule)
    student: StudentConfig = field(default_factory=StudentConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    splits: tuple[str, ...] = SPLITS
    """Splits of the notes that are read at all; a study leaves `test` out until its seal is
    broken. Does not enter into training."""
    max_length: int = 128
    """Tokens of a text that are read, for either model."""
    seed: int = 17
    """Decides the head's first weights, the order of notes and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU if the process can see one."""

    def __post_init__(self) -> None:
        check_open(self.splits)
        if self.max_length < 8:
            raise InputError(
                "max_length", f"{self.max_length} tokens is too short", "give 8 or more"
            )


def paper_preset(run: RunConfig) -> RunConfig:
    """Return the run with the choices of the DSG-KD paper and its reference (arXiv 2409.14904)."""
    return replace(
        run,
        words=WordRule("paper"),
        student=replace(run.student, head="paper"),
        distillation=replace(
            run.distillation,
            form="paper",
            mapping="uniform+emb",
            alpha=0.6,
            beta=0.2,
            cs_max_len=32,
        ),
        optimisation=replace(
            run.optimisation,
            epochs=15,
            batch_size=32,
            encoder_lr=1e-4,
            classifier_lr=5e-3,
            warmup_share=0.25,
        ),
        selection=replace(run.selection, objective="f1", threshold="prevalence"),
        max_length=384,
    )


@dataclass(frozen=True)
class OpenRun:
    """A run with everything in memory that its first step needs."""

    config: RunConfig
    notes: EncodedNotes
    label_names: tuple[str, ...]
    fingerprint: str
    """Of the notes to train on and to choose by, whatever else is open."""
    tokenizer: PreTrainedTokenizerBase
    distiller: Distiller
    teacher: RunTeacher | None
    device: torch.device
    autocast: bool
    """Compute in bf16."""


def open_run(config: RunConfig, cache: Path, store: StoreConfig | None = None) -> OpenRun:
    """Read the notes (from the cache if they were tokenised before) and load the models.

    With the same seed, two runs start from the same head and draw the same dropout whatever
    their teachers, so that their difference is the teacher's.

    Args:
        config: the run.
        cache: folder for tokenised notes, small pre-trained models and stored teachers.
        store: where teachers are stored, and how much they may take.

    Raises:
        InputError: the notes or a model cannot be used.
    """
    store = store or StoreConfig()
    device, autocast = where_to_run(config)
    attention = attention_for(device)
    student_reference = model_reference(config.student.model, cache)
    notes, label_names = open_notes(config, cache)
    _check_measures(notes.split("validation").labels, len(label_names), config.selection)

    seed_everything(config.seed)
    student = new_student(config.student, student_reference, len(label_names), attention)
    check_length(encoder_of(student), config.max_length, config.student.model)
    after_head = random_state()
    distiller, teacher = _distiller(config, student, cache, store, device, autocast)
    restore_random_state(after_head)
    return OpenRun(
        config,
        notes,
        label_names,
        open_table(config.data, config.world, cache, config.splits).only(SEALED).fingerprint,
        load_tokenizer(student_reference),
        distiller,
        teacher,
        device,
        autocast,
    )


def open_notes(config: RunConfig, cache: Path) -> tuple[EncodedNotes, tuple[str, ...]]:
    """Return the tokenised notes of a run and the names of its classes."""
    teacher = config.distillation.teacher
    return _encoded_notes(
        config.data,
        config.world,
        config.splits,
        model_reference(config.student.model, cache),
        model_reference(teacher, cache) if teacher else None,
        config.max_length,
        config.words,
        cache,
    )


@lru_cache(maxsize=2)
def open_table(
    data: DataConfig, world: WorldConfig, cache: Path, splits: tuple[str, ...] = SPLITS
) -> Notes:
    """Read the users' notes of the open splits once per process."""
    return read_notes(data, id_key(cache), world, splits)


@lru_cache(maxsize=8)
def _encoded_notes(
    data: DataConfig,
    world: WorldConfig,
    splits: tuple[str, ...],
    student: str,
    teacher: str | None,
    max_length: int,
    words: WordRule,
    cache: Path,
) -> tuple[EncodedNotes, tuple[str, ...]]:
    notes = open_table(data, world, cache, splits)
    encoded = EncodedNotes.build(
        notes,
        load_tokenizer(student),
        load_tokenizer(teacher) if teacher else None,
        max_length,
        words,
        cache,
    )
    return encoded, notes.label_names


def _distiller(
    config: RunConfig,
    student: torch.nn.Module,
    cache: Path,
    store: StoreConfig,
    device: torch.device,
    autocast: bool,
) -> tuple[Distiller, RunTeacher | None]:
    distillation = config.distillation
    if not distillation.teacher:
        return Distiller(student, distillation).to(device), None
    source = teacher_source(config, cache, device, autocast)
    encoder, theirs = encoder_of(student), source.config
    if distillation.form == "paper" and distillation.beta > 0:
        _check_heads(encoder.config, theirs)
    pairs = LayerMapping.parse(distillation.mapping).resolve(depth(encoder.config), depth(theirs))
    distiller = Distiller(
        student,
        distillation,
        pairs,
        encoder.config.hidden_size,
        theirs.hidden_size,
        config.max_length,
    ).to(device)
    if not distiller.distils:
        return distiller, None
    notes = open_notes(config, cache)[0].split("train")
    teacher = open_teacher(
        source,
        distiller.teacher_request,
        notes,
        distillation,
        config.optimisation.epochs,
        store,
        cache,
    )
    if distillation.shuffled:
        teacher = replace(teacher, answers=ShuffledTeacher(teacher.answers, config.seed))
    sample = training_batches(
        notes, config.optimisation.batch_size, distillation.cs_max_len, config.seed, 0
    )
    distiller.calibrate((batch.to(device) for batch in sample), teacher.answers, autocast)
    return distiller, teacher


def teacher_source(
    config: RunConfig, cache: Path, device: torch.device, autocast: bool
) -> TeacherSource:
    """Return everything that decides what a run's teacher says."""
    distillation = config.distillation
    # The control teacher's weights follow the run's seed: other seeds, other random teachers.
    random_seed = config.seed if distillation.teacher_weights == "random" else None
    return TeacherSource(
        distillation.teacher,
        model_reference(distillation.teacher, cache),
        random_seed,
        config.max_length,
        device,
        autocast,
    )


def _check_heads(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    ours, theirs = student.num_attention_heads, teacher.num_attention_heads
    if ours != theirs:
        raise InputError(
            "paper form",
            f"student has {ours} attention heads and teacher {theirs}",
            "use the standard form, or beta 0",
        )


def _check_measures(
    labels: NDArray[np.int64], num_classes: int, selection: SelectionConfig
) -> None:
    """Refuse to choose weights by a measure that the validation labels leave undefined."""
    measured = measures(labels, np.full((len(labels), num_classes), 1 / num_classes))
    for measure in (selection.objective, *selection.stop_when_stale):
        if np.isnan(measured[measure]):
            raise InputError(
                "validation", f"one class only, so '{measure}' is undefined", "split otherwise"
            )


def where_to_run(config: RunConfig) -> tuple[torch.device, bool]:
    """Return the device of a run in this process, and whether it computes in bf16."""
    device = _device(config.device)
    return device, _bf16(config.optimisation.precision, device)


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "no GPU is visible to this process", "use --device cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _bf16(precision: Precision, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
