"""A Prefect process worker in Tickline's environment."""

import os
import sys
from typing import NoReturn

from infra.servers import BUSY_S, ServerError, environment, healthy, running_server, worker_command
from infra.services import POOL, other_queues
from model_code.settings import Settings


def work(settings: Settings, *, pool: str, once: bool) -> NoReturn:
    """Replace this process with a worker of a process work pool; stopping it stops the worker.

    Raises:
        ServerError: no Prefect server responds.
        SharedStoreError: the shared store did not answer.
    """
    url = settings.prefect_api_url or os.environ.get("PREFECT_API_URL") or running_server(settings)
    if not url or not healthy(f"{url}/health", timeout_s=BUSY_S):
        raise ServerError(
            "no Prefect server answers",
            where=url or "PREFECT_API_URL is not set",
            remedy="start a server and a worker: tickline up",
        )
    queues = other_queues(settings) if pool == POOL else ()
    command = [*worker_command(pool, queues), *(["--run-once"] if once else [])]
    variables = os.environ | environment(settings) | {"PREFECT_API_URL": url}
    sys.stdout.flush()
    os.execve(command[0], command, variables)  # noqa: S606
