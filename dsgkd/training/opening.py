"""Opening a run: texts are encoded, models loaded, teachers opened, criteria calibrated."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from dsgkd.alignment.batch import Collator
from dsgkd.alignment.substitution import Substitution, count_words
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import knows
from dsgkd.alignment.words import WordRule
from dsgkd.data.identity import content_hash, id_key
from dsgkd.data.sources import SEALED, SPLITS, DataConfig, Notes, read_notes
from dsgkd.data.transfer_set import (
    GLOSSARY,
    LABELLED,
    UNLABELLED,
    Sampler,
    TransferConfig,
    new_sampler,
)
from dsgkd.data.unlabelled import TextSource, read_glossary, read_unlabelled
from dsgkd.data.world import WorldConfig
from dsgkd.distillation.distiller import Distiller, new_terms
from dsgkd.distillation.store.shard_storage import StoreConfig
from dsgkd.distillation.teachers.source import (
    RunTeacher,
    TeacherSource,
    check_length,
    open_teacher,
)
from dsgkd.errors import InputError
from dsgkd.models.attention import attention_for
from dsgkd.models.hub import load_tokenizer
from dsgkd.models.randomness import random_state, restore_random_state, seed_everything
from dsgkd.models.student import encoder_of
from dsgkd.tasks import Task
from dsgkd.training.config import Precision, RunConfig
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.prototypes import open_prototypes


@dataclass(frozen=True)
class OpenRun:
    """A run with everything in memory that its first step needs."""

    config: RunConfig
    task: Task
    """Bound to the student's tokenizer."""
    texts: EncodedTexts
    """The transfer set."""
    validation: EncodedTexts
    label_names: tuple[str, ...]
    fingerprint: str
    """Of the texts to train on and to choose by, whatever else is open."""
    tokenizer: PreTrainedTokenizerBase
    distiller: Distiller
    teachers: tuple[RunTeacher, ...]
    device: torch.device
    autocast: bool
    """Compute in bf16."""

    @property
    def student(self) -> nn.Module:
        """The model that is trained."""
        return self.distiller.student

    def sampler(self) -> Sampler:
        """Return the sampler of the transfer set, at its beginning."""
        return _sampler(self.config, self.texts)

    def collator(self, rank: int = 0, world_size: int = 1) -> Collator:
        """Return what assembles training batches."""
        same_length = self.distiller.same_length
        return Collator(
            self.config.distillation.max_transfer_words,
            rank,
            world_size,
            getattr(self.student, "needs_words", False),
            # Nobody reads the tokens of a stored teacher, unless positions are compared.
            tuple(
                same_length or not (teacher.is_stored or teacher.by_word)
                for teacher in self.teachers
            ),
            same_length,
            any(teacher.by_word for teacher in self.teachers),
        )


def open_run(config: RunConfig, cache: Path, store: StoreConfig | None = None) -> OpenRun:
    """Read the texts (from the cache if they were tokenised before) and load the models.

    With the same seed, two runs start from the same head and draw the same dropout whatever
    their teachers, so that their difference is the teachers'. Links of the run are not made here.

    Args:
        config: the run; its student's weights are there.
        cache: folder for tokenised texts, small pre-trained models and stored teachers.
        store: where teachers are stored, and how much they may take.

    Raises:
        InputError: the texts or a model cannot be used.
    """
    store = store or StoreConfig()
    device, autocast = where_to_run(config)
    reference = model_reference(config.student.model, cache, config.world)
    tokenizer = load_tokenizer(reference)
    task = config.task.bound(tokenizer)
    notes = open_table(config.data, config.world, cache, config.splits)
    encoded = open_notes(config, cache)
    validation = encoded.split("validation")
    texts = open_transfer_set(config, cache)
    task.check(validation, len(notes.label_names), config.selection.measures)

    seed_everything(config.seed)
    student = task.new_student(
        config.student, reference, len(notes.label_names), attention_for(device)
    )
    check_length(encoder_of(student), config.max_length, config.student.model)
    after_head = random_state()
    distiller = _distiller(config, task, student, cache, device, autocast)
    if task.idle and not distiller.terms:
        what = "no task, and no term either: nothing would be learnt"
        raise InputError("task", what, "give a teacher, and alpha or beta above 0")
    teachers = _teachers(config, distiller, texts, validation, store, cache, device, autocast)
    sources = [source.fingerprint for source in transfer_sources(config, cache).values()]
    fingerprint = notes.only(SEALED).fingerprint
    run = OpenRun(
        config,
        task,
        # Teachers that no term asks are not read.
        texts if teachers else texts.alone(),
        validation,
        notes.label_names,
        content_hash([fingerprint, *sources]) if sources else fingerprint,
        tokenizer,
        distiller,
        teachers,
        device,
        autocast,
    )
    if teachers:
        _calibrate(run)
    restore_random_state(after_head)
    return run


def open_notes(config: RunConfig, cache: Path) -> EncodedTexts:
    """Return the labelled notes of all open splits, encoded for student and teachers."""
    models = (config.student.model, *(choice.model for choice in config.distillation.choices))
    references = tuple(model_reference(model, cache, config.world) for model in models)
    return _encoded_notes(
        *(config.data, config.world, config.splits, references),
        *(config.max_length, config.words, cache, _substitutions(config, cache)),
    )


@lru_cache(maxsize=2)
def open_table(
    data: DataConfig, world: WorldConfig, cache: Path, splits: tuple[str, ...] = SPLITS
) -> Notes:
    """Read the users' notes of the open splits once per process."""
    return read_notes(data, id_key(cache), world, splits)


def transfer_sources(config: RunConfig, cache: Path) -> dict[str, TextSource]:
    """Return the texts of a run's transfer set besides the labelled notes, by their source."""
    return _transfer_sources(config.transfer, config.data, config.world, cache)


@lru_cache(maxsize=2)
def _transfer_sources(
    transfer: TransferConfig, data: DataConfig, world: WorldConfig, cache: Path
) -> dict[str, TextSource]:
    found = {}
    if transfer.unlabelled:
        notes = read_notes(data, id_key(cache), world, SEALED, held_out=True)
        parts = read_unlabelled(
            transfer.unlabelled, transfer.unlabelled_text, notes, id_key(cache), world
        )
        found[UNLABELLED] = TextSource.joined(parts)
    if transfer.glossary:
        found[GLOSSARY] = read_glossary(transfer.glossary, id_key(cache), world)
    return found


def open_transfer_set(config: RunConfig, cache: Path) -> EncodedTexts:
    """Return the texts that a run is trained on, encoded for student and teachers."""
    return EncodedTexts.joined(
        [open_notes(config, cache).split("train"), *_open_sources(config, cache)]
    )


def _open_sources(config: RunConfig, cache: Path) -> list[EncodedTexts]:
    models = (config.student.model, *(choice.model for choice in config.distillation.choices))
    student, *teachers = (
        load_tokenizer(model_reference(model, cache, config.world)) for model in models
    )
    substitutions = _substitutions(config, cache)
    return [
        EncodedTexts.of(
            *(source, student, teachers, config.max_length, config.words, cache),
            *(name, substitutions),
        )
        for name, source in transfer_sources(config, cache).items()
    ]


@lru_cache(maxsize=8)
def _encoded_notes(
    data: DataConfig,
    world: WorldConfig,
    splits: tuple[str, ...],
    references: tuple[str, ...],
    max_length: int,
    words: WordRule,
    cache: Path,
    substitutions: tuple[Substitution, ...],
) -> EncodedTexts:
    notes = open_table(data, world, cache, splits)
    student, *teachers = map(load_tokenizer, references)
    return EncodedTexts.of(
        *(notes, student, teachers, max_length, words, cache, LABELLED, substitutions)
    )


def _substitutions(config: RunConfig, cache: Path) -> tuple[Substitution, ...]:
    """Return what each teacher reads in place of its words, in the control of shuffled words.

    Drawn by the run's seed among the words of the transfer set; no held-out text decides anything.
    """
    if not config.distillation.shuffled:
        return ()
    models = (config.student.model, *(choice.model for choice in config.distillation.choices))
    student, *teachers = (model_reference(model, cache, config.world) for model in models)
    return tuple(
        _substitution(
            *(config.data, config.world, config.splits, config.transfer, config.words),
            *((student, teacher), config.seed, cache),
        )
        for teacher in teachers
    )


@lru_cache(maxsize=8)
def _substitution(
    data: DataConfig,
    world: WorldConfig,
    splits: tuple[str, ...],
    transfer: TransferConfig,
    words: WordRule,
    references: tuple[str, ...],
    seed: int,
    cache: Path,
) -> Substitution:
    notes = open_table(data, world, cache, splits).only(("train",))
    sources = _transfer_sources(transfer, data, world, cache).values()
    tables = [notes.table, *(source.table for source in sources)]
    counts = count_words((text for table in tables for text in table["text"].to_pylist()), words)
    found = sorted(counts)
    # Partners are known to the same models, so that as many words are transferred as without.
    known = [knows(load_tokenizer(reference), found, words) for reference in references]
    return Substitution.drawn(counts, dict(zip(found, zip(*known))), words, seed)


def _distiller(
    config: RunConfig,
    task: Task,
    student: nn.Module,
    cache: Path,
    device: torch.device,
    autocast: bool,
) -> Distiller:
    sources = teacher_sources(config, cache, device, autocast)
    terms = new_terms(
        config.distillation,
        encoder_of(student).config,
        [source.config for source in sources],
        config.max_length,
    )
    relative = config.distillation.weights == "relative"
    return Distiller(student, task, terms, config.optimisation.dropout, relative).to(device)


def _teachers(
    config: RunConfig,
    distiller: Distiller,
    texts: EncodedTexts,
    validation: EncodedTexts,
    store: StoreConfig,
    cache: Path,
    device: torch.device,
    autocast: bool,
) -> tuple[RunTeacher, ...]:
    if not distiller.teachers:
        return ()
    often = passes(config, texts)
    if config.task.idle:  # judged by its terms, on validation
        texts = EncodedTexts.joined([texts, validation])
    opened = []
    for at, source in enumerate(teacher_sources(config, cache, device, autocast)):
        request = distiller.requests(at)[1]
        if config.distillation.teacher_states == "prototypes":
            opened.append(open_prototypes(config, source, request, texts, at, cache))
            continue
        opened.append(
            open_teacher(source, request, texts, at, config.distillation, often, store, cache)
        )
    return tuple(opened)


def passes(config: RunConfig, texts: EncodedTexts) -> float:
    """Return how often a run reads its transfer set, in mean over the texts."""
    optimisation = config.optimisation
    if optimisation.steps:
        read = optimisation.steps * optimisation.batch_size
    else:
        sampler = _sampler(config, texts)
        read = optimisation.epochs * sum(len(sampler.draw(at)) for at in range(sampler.steps))
    return read / max(len(texts), 1)


def _sampler(config: RunConfig, texts: EncodedTexts) -> Sampler:
    return new_sampler(
        config.transfer,
        texts.lengths,
        texts.sources,
        texts.source_names,
        config.optimisation.batch_size,
        config.seed,
        lambda: texts.student.word_names,
    )


def teacher_sources(
    config: RunConfig, cache: Path, device: torch.device, autocast: bool
) -> list[TeacherSource]:
    """Return, for each teacher of a run, everything that decides its states."""
    distillation = config.distillation
    # The control teacher's weights follow the run's seed: other seeds, other random teachers.
    random_seed = config.seed if distillation.teacher_weights == "random" else None
    return [
        TeacherSource(
            choice.model,
            model_reference(choice.model, cache, config.world),
            random_seed,
            config.max_length,
            device,
            autocast,
        )
        for choice in distillation.choices
    ]


def _calibrate(run: OpenRun) -> None:
    """Let the criteria start from the first batches that training will meet."""
    sampler, collate = run.sampler(), run.collator()
    batches = (
        collate(run.texts, sampler.draw(step)).to(run.device) for step in range(sampler.steps)
    )
    run.distiller.calibrate(
        batches,
        [teacher.provider for teacher in run.teachers],
        run.config.distillation.calibration_words,
        run.autocast,
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
