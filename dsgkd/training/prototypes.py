"""Opening a run's teacher of prototypes: which words, which sentences, and what they hash to."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsgkd.alignment.texts import EncodedTexts
from dsgkd.alignment.view import View
from dsgkd.alignment.vocabulary import Vocabulary, carried
from dsgkd.data.identity import content_hash
from dsgkd.data.texts import read_corpus
from dsgkd.data.unlabelled import TextSource
from dsgkd.data.world import WorldConfig
from dsgkd.distillation.config import OWN
from dsgkd.distillation.teachers.prototypes import prototypes
from dsgkd.distillation.teachers.source import RunTeacher, TeacherSource
from dsgkd.errors import InputError
from dsgkd.models.hub import load_tokenizer
from dsgkd.models.names import is_built_here
from dsgkd.models.taps import TapRequest
from dsgkd.training.config import RunConfig
from dsgkd.training.on_the_fly import corpus

_MOST_TEXTS = 200_000
"""Texts of a corpus that are searched for words, spread evenly over it."""


def open_prototypes(
    config: RunConfig,
    source: TeacherSource,
    request: TapRequest,
    texts: EncodedTexts,
    position: int,
    cache: Path,
) -> RunTeacher:
    """Return one teacher of a run that gives prototypes of the words of its texts.

    Args:
        config: the run.
        source: the teacher.
        request: what is asked of it.
        texts: of which words prototypes are needed.
        position: the teacher's among those for which the texts are encoded.
        cache: folder of tokenised texts and prototypes.

    Raises:
        InputError: attention is asked of it, the corpus cannot be read, or a word fits into no
            carrier sentence.
    """
    if request.attention_layers:
        what = "attention belongs to a text, and prototypes are means over others"
        raise InputError("teacher states", what, "set beta to 0, or use context")
    distillation, tokenizer = config.distillation, load_tokenizer(source.reference)
    words = Vocabulary.of(texts.teachers[position])
    sentences = prototype_corpus(config, source.name)
    read = None
    if sentences is not None:
        read = View.of(sentences, tokenizer, config.max_length, config.words, cache, separate=True)
    provider = prototypes(
        source,
        request.hidden_layers,
        words,
        read,
        carried(words, distillation.carriers, tokenizer, config.max_length),
        distillation.prototype_sentences,
        cache,
    )
    where = "carrier sentences" if sentences is None else f"{len(sentences.table):,} texts"
    return RunTeacher(
        provider, "off", f"{len(words.names):,} prototypes from {where}", by_word=True
    )


def prototype_corpus(config: RunConfig, teacher: str) -> TextSource | None:
    """Return the texts from which a run's prototypes of a teacher come; None: carrier sentences.

    Raises:
        InputError: there are none.
    """
    path = config.distillation.prototype_corpus
    if config.distillation.teacher_states == "context" or not path:
        return None
    return _corpus(path, teacher if path == OWN else "", config.world)


@lru_cache(maxsize=2)
def _corpus(path: str, teacher: str, world: WorldConfig) -> TextSource:
    if path == OWN and not is_built_here(teacher):
        what = f"{teacher} was not pre-trained here, so its own text is not known"
        raise InputError("prototype corpus", what, "give a file or folder of text")
    texts = list(corpus(teacher, world) if path == OWN else read_corpus(path))
    if len(texts) > _MOST_TEXTS:
        spread = np.linspace(0, len(texts) - 1, _MOST_TEXTS).astype(int).tolist()
        texts = [texts[at] for at in spread]
    return TextSource(pa.table({"text": texts}), content_hash(texts), "prototype corpus", {})
