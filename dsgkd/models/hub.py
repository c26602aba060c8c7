"""Names of models, and how the models behind them are loaded safely.

A model is named by a name of the zoo (the reference's command line names, METHOD of the DSG-KD
paper, and the two tiny models of the embedded world), by a Hugging Face hub id, or by a local
folder. Code of a model's own is never run, nor is anybody asked on the terminal whether it may be;
weights are read as safetensors, or as a weights-only pickle where a hub model offers nothing else.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

import dsgkd.models.attention  # noqa: F401  (registers the functions that a model may ask for)
from dsgkd.errors import InputError
from dsgkd.models.names import HUB_MODELS
from dsgkd.models.randomness import random_state, restore_random_state, seed_everything

# Progress bars and notes such as "some weights were newly initialised" (true of every new head)
# would drown what matters in a study of many runs.
disable_progress_bar()
set_verbosity_error()

ALTERNATIVES = (
    "give a local folder, pre-train small models from your own text with --student-corpus and "
    "--teacher-corpus, or use tiny-ko and tiny-en-med"
)


def resolve(name: str) -> str:
    """Return the hub id or local folder behind a name, checking that it can be had.

    Raises:
        InputError: a name without public weights, a folder that is no model, or a hub id that is
            neither cached nor reachable.
    """
    if name == "kmbert":
        raise InputError("kmbert", "its checkpoints are not on the hub", "give their local folder")
    reference = HUB_MODELS.get(name, name)
    path = Path(reference).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(name, "the folder holds no config.json, so no model", ALTERNATIVES)
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or path.exists():
        raise InputError(name, "not a model folder", "check the path")
    _check_hub(reference)
    return reference


def _check_hub(hub_id: str) -> None:
    """Fail within seconds where loading would retry for a minute and end in a traceback."""
    try:
        if isinstance(try_to_load_from_cache(hub_id, "config.json"), str):
            return
        if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
            raise InputError(hub_id, "not in the cache, and HF_HUB_OFFLINE is set", ALTERNATIVES)
        get_hf_file_metadata(hf_hub_url(hub_id, "config.json"), timeout=5, retry_on_errors=False)
    except HFValidationError as error:
        raise InputError(hub_id, "neither a folder nor a hub id", ALTERNATIVES) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            hub_id, "no such folder, and no such model on the hub", ALTERNATIVES
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise InputError(
            hub_id, "no such folder, and the hub cannot be reached", ALTERNATIVES
        ) from error
    except InputError:
        raise
    except Exception as error:  # the HTTP client's own exception types differ between versions
        raise InputError(
            hub_id, "no such folder, and the hub cannot be reached", ALTERNATIVES
        ) from error


def load_tokenizer(reference: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer.

    Raises:
        InputError: there is none.
    """
    tokenizer = _load(reference, "tokenizer", AutoTokenizer.from_pretrained)
    if not tokenizer.is_fast:
        raise InputError(reference, "its tokenizer is not a fast one", "give a model that has one")
    # Where the files are missing, transformers makes a tokenizer that knows no word.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(reference, "its tokenizer files are missing", "save the tokenizer with it")
    return tokenizer


def load_config(reference: str, **changes: Any) -> PretrainedConfig:
    """Load a model's configuration, some of its fields changed.

    Raises:
        InputError: there is none.
    """
    return _load(reference, "configuration", AutoConfig.from_pretrained, **changes)


def depth(config: PretrainedConfig) -> int:
    """Return the number of layers of a model, whatever its family calls them."""
    return int(config.num_hidden_layers)


def load_model(
    reference: str,
    attention: str,
    auto_class: Any = AutoModel,
    random_weights_seed: int | None = None,
    whole: bool = False,
    **config_changes: Any,
) -> PreTrainedModel:
    """Load an encoder (or what `auto_class` builds on one) in float32.

    The random number generators are as they were afterwards, unless weights had to be drawn for
    a new head: those come from the generators' current state, like any initialisation.

    Args:
        reference: local folder or hub id.
        attention: name of a registered attention function.
        auto_class: a transformers Auto class.
        random_weights_seed: if given, the architecture is kept and every weight is drawn anew:
            the control teacher that knows nothing.
        whole: refuse weights whose names are not exactly the model's. Otherwise a head and a
            pooler may be new, and weights of another head are left aside.
        config_changes: fields of the configuration to change, such as `num_labels`.

    Raises:
        InputError: it cannot be loaded, or weights of the encoder are missing.
    """
    if random_weights_seed is not None:
        config = load_config(reference, **config_changes)
        before = random_state()
        seed_everything(random_weights_seed)
        model = auto_class.from_config(
            config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
        )
        restore_random_state(before)
        return model

    model, report = _load(
        reference,
        "model",
        auto_class.from_pretrained,
        attn_implementation=attention,
        dtype=torch.float32,
        output_loading_info=True,
        **config_changes,
    )
    missing = {name for name in report["missing_keys"] if whole or _is_of_encoder(name, model)}
    _check_names(reference, "lack", missing)
    if whole:
        _check_names(reference, "have unknown", set(report["unexpected_keys"]))
    return model


def _is_of_encoder(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor belongs to the pre-trained encoder: neither to a head nor to a pooler."""
    is_alone = model.base_model is model
    is_inside = is_alone or name.startswith(f"{model.base_model_prefix}.")
    return is_inside and "pooler" not in name.split(".")


def _check_names(reference: str, verb: str, names: set[str]) -> None:
    if names:
        some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        what = f"its weights {verb} tensors ({len(names)}: {some})"
        raise InputError(reference, what, "give the weights of this architecture, or copy it anew")


def _load(reference: str, what: str, load: Callable[..., Any], **options: Any) -> Any:
    try:
        return load(reference, trust_remote_code=False, **options)
    except InputError:
        raise
    except Exception as error:  # damaged files end in nearly every type, tokenizers' in no other
        reason = " ".join(str(error).split())[:200]
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own, which is never run"
        raise InputError(
            reference, f"its {what} cannot be loaded ({reason})", ALTERNATIVES
        ) from error
