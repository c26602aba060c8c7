"""The states of teachers and student of the training notes, pooled to one vector a note."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
import torch

from dsgkd.alignment.batch import Batch, Collator, evaluation_batches
from dsgkd.alignment.texts import EncodedTexts
from dsgkd.data.ragged import Array, Ragged
from dsgkd.distillation.store.config import StoreConfig
from dsgkd.distillation.teachers.source import RunTeacher, open_teacher
from dsgkd.headroom.config import HeadroomConfig
from dsgkd.headroom.features import (
    RANDOM,
    SHUFFLED,
    STUDENT_TOKENS,
    STUDENT_WORDS,
    TEACHER,
    Occurrences,
    StateName,
)
from dsgkd.models.attention import attention_for
from dsgkd.models.heads import mean_of_tokens, mean_of_words
from dsgkd.models.hub import depth
from dsgkd.models.names import CORPUS_PREFIX
from dsgkd.models.student import encoder_of, new_student
from dsgkd.models.taps import TapRequest, run_model
from dsgkd.training.config import RunConfig
from dsgkd.training.on_the_fly import model_reference
from dsgkd.training.opening import teacher_sources, where_to_run

BATCH = 32
MANY_PASSES = 1000
"""As for a run that is long enough for a store: what is stored here, trials will read."""


@dataclass(frozen=True)
class TeacherNotes:
    """One teacher, and the training notes as it reads them."""

    run: RunConfig
    """Names the teacher, alone."""
    texts: EncodedTexts
    name: str
    """The teacher, for people."""

    def states(
        self, config: HeadroomConfig, store: StoreConfig, cache: Path
    ) -> dict[StateName, Array]:
        """Return its pooled states by layer, those of its random doubles, and the shuffled ones.

        The teacher's are read from its store, or put into it; those of random weights are computed
        and forgotten.

        Raises:
            InputError: the model cannot be used, or the store cannot be written.
        """
        distillation = self.run.distillation
        stored = replace(distillation, teacher_store="auto")
        doubles = [
            replace(
                self.run,
                seed=config.seed + draw,
                distillation=replace(distillation, teacher_weights="random", teacher_store="live"),
            )
            for draw in range(config.random_teachers)
        ]
        (source,) = teacher_sources(self.run, cache, *where_to_run(self.run))
        layers = spread(depth(source.config), config.layers)
        words = occurrences(self.texts, distillation.max_transfer_words)
        found = {}
        for layer, states in self._of(replace(self.run, distillation=stored), layers, store, cache):
            found[StateName(self.name, TEACHER, layer)] = words.mean(states)
            found[StateName(self.name, SHUFFLED, layer)] = words.dealt(states, config.seed)
        for draw, double in enumerate(doubles):
            for layer, states in self._of(double, layers, store, cache):
                found[StateName(self.name, RANDOM, layer, draw)] = words.mean(states)
        return found

    def _of(
        self, run: RunConfig, layers: tuple[int, ...], store: StoreConfig, cache: Path
    ) -> Iterator[tuple[int, Array]]:
        """Yield the states of the transferred words in each layer, [words, width]."""
        device, autocast = where_to_run(run)
        (source,) = teacher_sources(run, cache, device, autocast)
        teacher = open_teacher(
            source, TapRequest(layers), self.texts, 0, run.distillation, MANY_PASSES, store, cache
        )
        most = run.distillation.max_transfer_words
        collected = _states(teacher, self.texts, most, layers, device)
        yield from zip(layers, collected)


def _states(
    teacher: RunTeacher,
    texts: EncodedTexts,
    most: int,
    layers: tuple[int, ...],
    device: torch.device,
) -> list[Array]:
    collate = Collator(most, teacher_tokens=(not teacher.is_stored,))
    counts = np.minimum(texts.alignments[0].words.lengths, most)
    first = np.cumsum(counts) - counts
    result: list[Array] = [np.zeros((0, 0), np.float32)] * len(layers)
    for batch in _batches(texts, collate):
        (pair,) = batch.to(device).pairs
        states = teacher.provider.word_states(pair)
        mask = pair.mask.cpu().numpy()
        text, place = np.nonzero(mask)
        where = first[batch.rows.numpy()[text]] + place
        for at, layer in enumerate(layers):
            values = states.hidden[layer].cpu().numpy()[mask]
            if not len(result[at]):
                result[at] = np.zeros((int(counts.sum()), values.shape[1]), np.float32)
            result[at][where] = values
    return result


def student_states(run: RunConfig, texts: EncodedTexts, cache: Path) -> dict[StateName, Array]:
    """Return the last states of the student before any training: means of tokens, and of words.

    Raises:
        InputError: the model cannot be used.
    """
    device, autocast = where_to_run(run)
    reference = model_reference(run.student.model, cache, run.world)
    plain = replace(run.student, head="mean")  # any head will do: only the encoder is read
    student = new_student(plain, reference, 2, attention_for(device))
    encoder = encoder_of(student).eval().to(device)
    collate = Collator(run.distillation.max_transfer_words, own_words=True)
    parts: dict[str, list[Array]] = {STUDENT_TOKENS: [], STUDENT_WORDS: []}
    rows = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for batch in _batches(texts.alone(), collate):
            side = batch.to(device).student
            states = run_model(encoder, side).last_hidden_state.float()
            pooled = mean_of_words(states, side.words.spans)
            none = ~(side.words.spans[..., 1] > side.words.spans[..., 0]).any(1)
            pooled[none] = float("nan")
            tokens = mean_of_tokens(states, side.attention_mask)
            parts[STUDENT_TOKENS].append(tokens.float().cpu().numpy())
            parts[STUDENT_WORDS].append(pooled.float().cpu().numpy())
            rows.append(batch.rows.numpy())
    back = np.argsort(np.concatenate(rows))
    name, layer = (
        PurePath(run.student.model).name.removeprefix(CORPUS_PREFIX),
        depth(encoder.config),
    )
    return {
        StateName(name, features, layer): np.concatenate(arrays)[back].astype(np.float64)
        for features, arrays in parts.items()
    }


def occurrences(texts: EncodedTexts, most: int) -> Occurrences:
    """Return the transferred words of the first teacher; a type is what its tokens are."""
    words, view = texts.alignments[0].words, texts.teachers[0]
    kept = Ragged(words.values, words.starts, np.minimum(words.lengths, most))
    rows, spans = kept.rows(), kept.flat()
    numbers: dict[bytes, int] = {}
    types = [
        numbers.setdefault(
            view.tokens.values[
                view.tokens.starts[row] + start : view.tokens.starts[row] + end
            ].tobytes(),
            len(numbers),
        )
        for row, (start, end) in zip(rows.tolist(), spans[:, 2:4].tolist())
    ]
    return Occurrences(rows, np.asarray(types, np.int64), len(words))


def spread(deep: int, most: int) -> tuple[int, ...]:
    """Return at most so many layers of a model, evenly spread, the last one among them."""
    count = min(most, deep)
    return tuple(sorted({-(-deep * at // count) for at in range(1, count + 1)}))


def _batches(texts: EncodedTexts, collate: Collator) -> Iterator[Batch]:
    yield from evaluation_batches(texts, BATCH, collate)
