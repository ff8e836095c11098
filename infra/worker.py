"""A Prefect process worker in Tickline's environment."""

import os
import subprocess
import sys

from infra.servers import ServerError, environment, healthy, running_server
from model_code.settings import Settings


def work(settings: Settings, *, pool: str, once: bool) -> int:
    """Run a worker of a process work pool until it is stopped; return its exit status.

    Raises:
        ServerError: no Prefect server answers.
    """
    url = settings.prefect_api_url or os.environ.get("PREFECT_API_URL") or running_server(settings)
    if not url or not healthy(f"{url}/health"):
        raise ServerError(
            "no Prefect server answers",
            where=url or "PREFECT_API_URL is not set",
            remedy="tickline up starts a server and a worker",
        )
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    command += ["--pool", pool, *(["--run-once"] if once else [])]
    variables = os.environ | environment(settings) | {"PREFECT_API_URL": url}
    return subprocess.run(command, env=variables, check=False).returncode
