"""Deploy prefect.yaml on a Prefect server: the work pool, its queues by priority, the flows.

`python -m infra.deploy` uses the configured server.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from infra.servers import ServerError, environment
from infra.services import POOL
from model_code.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ROOT = Path(__file__).resolve().parents[1]
QUEUES = {"serving": 1, "nightly": 2, "background": 3}  # a lower number has priority


def make_pool(client: "SyncPrefectClient") -> None:
    """Create the process work pool unless it exists."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):  # a worker may create it at the same time
            client.create_work_pool(
                WorkPoolCreate(name=POOL, type="process", base_job_template=template)
            )


def _set_priority(client: "SyncPrefectClient", name: str, priority: int) -> None:
    client.request(  # the client has no method for the queue of a pool
        "PATCH",
        "/work_pools/{work_pool_name}/queues/{name}",
        path_params={"work_pool_name": POOL, "name": name},
        json={"priority": priority},
    )


def deploy(variables: Mapping[str, str]) -> list[str]:
    """Create pool and queues, deploy every flow of prefect.yaml; return the deployments' names.

    Prefect's environment must be set.

    Raises:
        ServerError: Prefect fails; the end of its output is in the message.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        make_pool(client)
        for name, priority in QUEUES.items():
            try:
                client.create_work_queue(name, priority=priority, work_pool_name=POOL)
            except ObjectAlreadyExists:
                # a bare `prefect deploy` creates queues too, with priorities in file order
                _set_priority(client, name, priority)
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env=os.environ | dict(variables) | {"PWD": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(
                "the flows could not be deployed:\n" + (done.stderr or done.stdout)[-800:],
                where=str(ROOT / "prefect.yaml"),
            )
        mine = DeploymentFilter(tags=DeploymentFilterTags(all_=["tickline"]))
        return sorted(found.name for found in client.read_deployments(deployment_filter=mine))


def main() -> None:
    """Deploy, and print the deployments' names."""
    variables = environment(Settings().resolved())
    os.environ.update(variables)  # before Prefect is imported
    print("deployed " + ", ".join(deploy(variables)))  # noqa: T201


if __name__ == "__main__":
    main()
