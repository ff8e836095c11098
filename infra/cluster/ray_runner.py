"""Prefect's task runner for Ray: a temporary instance on this machine, or a cluster's address.

Sources: prefect-ray's `RayTaskRunner`; Ray's documentation, `ray.init`, token authentication.
"""

import logging
import os
import secrets
from tempfile import TemporaryDirectory
from typing import Any, Self

from prefect_ray.task_runners import RayTaskRunner

STORE_BYTES = 100_000_000  # results are references to artefacts; Ray's least is 75 MB
_QUIET = {"log_to_driver": False, "logging_level": "warning"}


def ray_at(address: str) -> RayTaskRunner[Any]:
    """Ray at the address of its client server."""
    return RayTaskRunner(address, init_kwargs=_QUIET)


class LocalRayRunner(RayTaskRunner[Any]):  # type: ignore[misc]  # prefect-ray has no types
    """Ray on this machine while the context is open.

    Some of its ports are open to the network: clients need a token, made once for each process.

    Args:
        workers: tasks at a time.
    """

    def __init__(self, workers: int):
        self.workers = workers
        kwargs = {
            **_QUIET,
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
        super().__init__(init_kwargs=kwargs)

    def duplicate(self) -> Self:
        """Another one that is not started."""
        return type(self)(self.workers)

    def __enter__(self) -> Self:
        # it holds sockets, whose paths have at most 107 bytes
        self._folder = TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
        self.init_kwargs["_temp_dir"] = self._folder.name
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Ray asks for a token by default, warns of that, and writes one to ~/.ray if there is none
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        try:
            super().__enter__()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *exc_info: Any) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            self._folder.cleanup()
