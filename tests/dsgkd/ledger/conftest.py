import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_server import endpoint as endpoint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Callable[[str, int], subprocess.CompletedProcess[str]]:
    """Return a function that runs a script with a folder on a really small disk as argument."""

    def run(script: str, kilobytes: int) -> subprocess.CompletedProcess[str]:
        inner = f'mount -t tmpfs -o size={kilobytes}k tmpfs "{tmp_path}" && exec "$@"'
        space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner, "sh"]
        if (
            not shutil.which("unshare")
            or subprocess.run([*space, "true"], capture_output=True).returncode
        ):
            pytest.skip("this system lets no user mount a small disk")
        return subprocess.run(
            [*space, sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    return run
