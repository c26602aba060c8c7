"""The Ray on which studies are measured: two CPUs that nobody else has."""

import os
import tempfile

import ray

CPUS = 2


class LocalRay:
    """A Ray of two CPUs in a folder of its own."""

    def __enter__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._folder = tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)
        ray.init(
            address="local",
            num_cpus=CPUS,
            include_dashboard=True,  # without it, Train trials leak their placement groups
            dashboard_host="127.0.0.1",
            dashboard_port=0,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=self._folder.name,
        )

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        self._folder.cleanup()
