"""Which small models are pre-trained on the spot, and where are they kept?

`tiny-ko` (general Korean) and `tiny-en-med` (clinical English) are learnt from the embedded
world; others from a folder of the user's own text. A model is built once per content (corpus and
configuration) and kept in the cache.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from dsgkd.data.sources import read_corpus
from dsgkd.data.world import WorldConfig, english_corpus, korean_corpus
from dsgkd.errors import InputError
from dsgkd.models.hub import resolve
from dsgkd.models.names import CORPUS_PREFIX, TINY_MODELS
from dsgkd.models.pretraining import PretrainingConfig, pretrain, pretraining_key

TINY = PretrainingConfig(vocabulary=4000, layers=2, width=128, length=64, tokens=1_500_000)
"""What `tiny-ko` and `tiny-en-med` are."""


@lru_cache
def model_reference(name: str, cache: Path) -> str:
    """Return the hub id or folder behind a model name, pre-training it first if it must be.

    Besides what `zoo.resolve` knows, `tiny-ko`, `tiny-en-med` and `corpus:PATH` (a model of the
    default small size, pre-trained on the text under PATH) are names.

    Raises:
        InputError: no such model.
    """
    if is_built_here(name):
        return str(build(name, cache))
    return resolve(name)


def build(
    name: str,
    cache: Path,
    config: PretrainingConfig | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Return the folder of a model that is pre-trained on the spot, building it if needed."""
    texts, config = _corpus(name), config or _configuration(name)
    label = _label(name)
    folder = _folder(label, texts, config, cache)
    if _is_built(folder):
        say(f"{label}: pre-trained before, from {folder}")
        return folder
    pretrain(texts, config, folder, lambda line: say(f"{label}: {line}"))
    return folder


def check_kept(names: Sequence[str], cache: Path) -> None:
    """Refuse to go on where a model that was pre-trained before is not in the cache any more.

    Pre-trained again, on another machine or another day, it would be another model.

    Raises:
        InputError: one is missing.
    """
    for name in dict.fromkeys(names):
        if not is_built_here(name):
            continue
        folder = _folder(_label(name), _corpus(name), _configuration(name), cache)
        if not _is_built(folder):
            raise InputError(
                str(folder),
                "not there, but trials were trained with this model",
                f"copy {cache.name}/ as well, from the folder in which the study began",
            )


def _folder(label: str, texts: Sequence[str], config: PretrainingConfig, cache: Path) -> Path:
    return cache / "models" / f"{label}-{pretraining_key(texts, config)}"


def _is_built(folder: Path) -> bool:
    return (folder / "pretraining.json").is_file()


def _configuration(name: str) -> PretrainingConfig:
    return TINY if name in TINY_MODELS else PretrainingConfig()


def _label(name: str) -> str:
    return name if name in TINY_MODELS else Path(name.removeprefix(CORPUS_PREFIX)).stem


def _corpus(name: str) -> Sequence[str]:
    if name.startswith(CORPUS_PREFIX):
        return read_corpus(name.removeprefix(CORPUS_PREFIX))
    return korean_corpus(WorldConfig()) if name == "tiny-ko" else english_corpus(WorldConfig())


def is_built_here(name: str) -> bool:
    """Whether a model is pre-trained on the spot rather than loaded."""
    return name in TINY_MODELS or name.startswith(CORPUS_PREFIX)


def build_missing(names: Sequence[str], cache: Path, say: Callable[[str], None]) -> None:
    """Pre-train those of the named models that need it, one after the other."""
    for name in dict.fromkeys(names):
        if is_built_here(name):
            build(name, cache, say=say)
