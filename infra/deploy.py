"""Deploy prefect.yaml on a Prefect server: the work pool, its queues by priority, the flows."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.servers import ServerError
from infra.services import POOL

ROOT = Path(__file__).resolve().parents[1]
QUEUES = {"serving": 1, "nightly": 2, "background": 3}  # a lower number is taken first


def deploy(environment: Mapping[str, str]) -> list[str]:
    """Make pool and queues, deploy every flow of prefect.yaml; return the deployments' names.

    Must run with Prefect's environment set.

    Raises:
        ServerError: Prefect refuses; its last words are in the message.
    """
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            try:
                client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            except ObjectAlreadyExists:  # the worker was quicker
                client.read_work_pool(POOL)
        for name, priority in QUEUES.items():
            try:
                client.create_work_queue(name, priority=priority, work_pool_name=POOL)
            except ObjectAlreadyExists:
                continue
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env=os.environ | dict(environment) | {"PWD": str(ROOT)},
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
