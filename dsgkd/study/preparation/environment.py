"""What a study runs on: versions, hardware and the state of the source tree."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
import transformers

from dsgkd import __version__

_KIND = "accelerator_type:"
"""Prefix of the resources by which Ray names kinds of GPUs."""


def versions() -> dict[str, str | None]:
    """Return the versions for the `studies` table; git_commit ends in `+` if files differ."""
    return {
        "dsgkd_version": __version__,
        "git_commit": _git_commit(),
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "ray_version": ray.__version__,
        "transformers_version": transformers.__version__,
        "optuna_version": optuna.__version__,
    }


def environment() -> dict[str, str]:
    """Return the installed packages and their versions."""
    found = {
        distribution.metadata["Name"].lower(): distribution.version
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"]
    }
    return dict(sorted(found.items()))


def lock_hash() -> str:
    """Return the SHA-256 of `environment`, as lines of `package==version`: equal where equal."""
    lines = "".join(f"{name}=={version}\n" for name, version in environment().items())
    return hashlib.sha256(lines.encode()).hexdigest()


def hardware() -> dict[str, Any]:
    """Return how many machines, CPUs and GPUs there are, and of which kinds."""
    found: dict[str, Any] = {
        "architecture": platform.machine(),
        "system": platform.system(),
        "nodes": 1,
        "cpus": os.cpu_count(),
    }
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found["gpus"] = dict(Counter(names))
    if ray.is_initialized():
        cluster = ray.cluster_resources()
        found |= {"nodes": len(ray.nodes()), "cpus": cluster.get("CPU", 0)}
        kinds = {name.removeprefix(_KIND) for name in cluster if name.startswith(_KIND)}
        found |= {"cluster_gpus": cluster.get("GPU", 0), "accelerators": sorted(kinds)}
    return found


def _git_commit() -> str | None:
    source = Path(__file__).parent
    try:
        commit = _git(source, "rev-parse", "HEAD")
        changed = _git(source, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
