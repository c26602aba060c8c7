"""Small models that are pre-trained on the spot, and where they are kept.

`tiny-ko` (general Korean), `tiny-en-med` (clinical English) and `tiny-en-tech` (English of another
domain) are learnt from the synthetic world of the run; others from a folder of the user's own text.
A model is built once per content (corpus and configuration) and kept in the cache.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from dsgkd.data.texts import read_corpus
from dsgkd.data.world import WorldConfig, english_corpus, korean_corpus, technical_corpus
from dsgkd.errors import InputError
from dsgkd.models.hub import resolve
from dsgkd.models.names import CORPUS_PREFIX, TINY_MODELS, is_built_here
from dsgkd.training.pretraining_config import PretrainingConfig, pretraining_key

TINY = PretrainingConfig(vocabulary=4000, layers=2, width=128, length=64, tokens=1_500_000)
"""What the models of the synthetic world are."""

_CORPORA = {
    "tiny-ko": korean_corpus,
    "tiny-en-med": english_corpus,
    "tiny-en-tech": technical_corpus,
}


@lru_cache
def model_reference(name: str, cache: Path, world: WorldConfig) -> str:
    """Return the hub id or folder behind a model name.

    Besides what `hub.resolve` knows, `TINY_MODELS` (those of `world`) and `corpus:PATH` (a model of
    the default small size, pre-trained on the text under PATH) are names.

    Raises:
        InputError: no such model, or one that was not pre-trained yet.
    """
    if not is_built_here(name):
        return resolve(name)
    folder = folder_of(name, cache, world)
    if not is_built(folder):
        raise InputError(name, "not pre-trained yet", "build it first")
    return str(folder)


def is_built(folder: Path) -> bool:
    """Whether a model's folder holds one that was finished."""
    return (folder / "pretraining.json").is_file()


def folder_of(
    name: str, cache: Path, world: WorldConfig, config: PretrainingConfig | None = None
) -> Path:
    """Return where a model that is pre-trained on the spot is kept."""
    key = pretraining_key(corpus(name, world), config or configuration(name))
    return cache / "models" / f"{label(name)}-{key}"


def configuration(name: str) -> PretrainingConfig:
    """Return how a model is pre-trained."""
    return TINY if name in TINY_MODELS else PretrainingConfig()


def label(name: str) -> str:
    """Return a model's name for people, and for its folder."""
    return name if name in TINY_MODELS else Path(name.removeprefix(CORPUS_PREFIX)).stem


def corpus(name: str, world: WorldConfig) -> Sequence[str]:
    """Return the text from which a model is pre-trained; that of a world is made once per process.

    Raises:
        InputError: there is none.
    """
    if name.startswith(CORPUS_PREFIX):
        return read_corpus(name.removeprefix(CORPUS_PREFIX))
    return _corpus_of(name, world.language)


@lru_cache(maxsize=len(TINY_MODELS))
def _corpus_of(name: str, language: WorldConfig) -> Sequence[str]:
    return _CORPORA[name](language)


def check_kept(names: Sequence[str], cache: Path, world: WorldConfig) -> None:
    """Refuse to go on where a model that was pre-trained before is not in the cache any more.

    Pre-trained again, on another machine or another day, it would be another model.

    Raises:
        InputError: one is missing.
    """
    for name in dict.fromkeys(names):
        if not is_built_here(name):
            continue
        folder = folder_of(name, cache, world)
        if not is_built(folder):
            raise InputError(
                str(folder),
                "not there, but trials were trained with this model",
                f"copy {cache.name}/ as well, from the folder in which the study began",
            )
