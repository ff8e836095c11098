"""Deploy prefect.yaml on a Prefect server: the work pool, its queues by priority, the flows.

`python -m infra.deploy` uses the configured server, or the home's own, and waits until it answers;
with `--wait-only` it does no more than that.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from infra.redact import redact
from infra.servers import ServerError, environment, healthy, running_server
from infra.services import OTHER_QUEUES, POOL, SERVING_QUEUE
from model_code.errors import ConfigError, TicklineError
from model_code.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

WAIT_S = 300.0
ROOT = Path(__file__).resolve().parents[1]
PREFECT_FILE = ROOT / "prefect.yaml"
RETIRED = ("promotion-timeouts/promotion-timeouts",)  # of an earlier Tickline; they would fail
# a lower number has priority
QUEUES = {SERVING_QUEUE: 1} | {name: 2 + n for n, name in enumerate(OTHER_QUEUES)}


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
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client, tempfile.TemporaryDirectory() as scratch:
        make_pool(client)
        for name, priority in QUEUES.items():
            try:
                client.create_work_queue(name, priority=priority, work_pool_name=POOL)
            except ObjectAlreadyExists:
                # a bare `prefect deploy` creates queues too, with priorities in file order
                _set_priority(client, name, priority)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
                *("--prefect-file", str(_with_pauses(client, Path(scratch)))),
            ],
            cwd=ROOT,
            env=os.environ | dict(variables) | {"PWD": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(
                "the flows could not be deployed:\n" + (done.stderr or done.stdout)[-800:],
                where=str(PREFECT_FILE),
            )
        for name in RETIRED:
            with suppress(ObjectNotFound):
                client.delete_deployment(client.read_deployment_by_name(name).id)
        return sorted(found.name for found in _deployed(client))


def _deployed(client: "SyncPrefectClient") -> "list[DeploymentResponse]":
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    mine = DeploymentFilter(tags=DeploymentFilterTags(all_=["tickline"]))
    return client.read_deployments(deployment_filter=mine)


def _with_pauses(client: "SyncPrefectClient", scratch: Path) -> Path:
    """prefect.yaml, or a copy in which what a person paused on the server stays paused."""
    paused = {found.name: found for found in _deployed(client) if is_paused(found)}
    if not paused:
        return PREFECT_FILE
    document = yaml.safe_load(PREFECT_FILE.read_text())
    for wanted in document["deployments"]:
        found = paused.get(wanted["name"])
        if found is None:
            continue
        wanted["paused"] = found.paused
        off = {schedule.slug for schedule in found.schedules if not schedule.active}
        for schedule in wanted.get("schedules", ()):
            if schedule.get("slug") in off:
                schedule["active"] = False
    copy = scratch / PREFECT_FILE.name
    copy.write_text(yaml.safe_dump(document, sort_keys=False))
    return copy


def is_paused(deployment: "DeploymentResponse") -> bool:
    """Whether a person paused the deployment or one of its schedules."""
    return deployment.paused or any(not schedule.active for schedule in deployment.schedules)


def paused_deployments() -> list[str]:
    """Names of the paused deployments. Prefect's environment must be set."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return sorted(found.name for found in _deployed(client) if is_paused(found))


def set_paused(name: str, paused: bool) -> None:
    """Pause or resume a deployment with its schedules. Prefect's environment must be set.

    Raises:
        ConfigError: no deployment has this name.
    """
    from prefect import get_client

    with get_client(sync_client=True) as client:
        known = {found.name: found for found in _deployed(client)}
        if name not in known:
            raise ConfigError(
                f"no deployment named {name}",
                where=str(client.api_url),
                remedy=f"choose one of {', '.join(sorted(known))}"
                if known
                else "deploy the flows: tickline up",
            )
        found = known[name]
        if paused:
            client.pause_deployment(found.id)
        else:
            client.resume_deployment(found.id)
        for schedule in found.schedules:
            client.update_deployment_schedule(found.id, schedule.id, active=not paused)


def wait_for_server(settings: Settings, *, seconds: float = WAIT_S) -> str:
    """The server's API URL, once it answers.

    Raises:
        ServerError: it did not answer in time.
    """
    end = time.monotonic() + seconds
    while True:
        configured = settings.prefect_api_url or os.environ.get("PREFECT_API_URL")
        url = configured or running_server(settings, wait_s=0.0)
        if url and healthy(f"{url}/health"):
            return url
        if time.monotonic() > end:
            raise ServerError(
                f"the Prefect server did not answer within {seconds:g} s",
                where=url or "PREFECT_API_URL is not set, and no server of this home runs",
                remedy="start it, or correct PREFECT_API_URL",
            )
        time.sleep(1.0)


def main(arguments: Sequence[str]) -> int:
    """Wait for the server, deploy, and print the deployments' names; return 1 on an error."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.add_argument("--wait-only", action="store_true", help="only wait for the server")
    parser.add_argument("--timeout", type=float, default=WAIT_S, help="seconds (default: 300)")
    options = parser.parse_args(arguments)
    try:
        settings = Settings().resolved()
        url = wait_for_server(settings, seconds=options.timeout)
        if options.wait_only:
            return 0
        variables = environment(settings) | {"PREFECT_API_URL": url}
        os.environ.update(variables)  # before Prefect is imported
        print("deployed " + ", ".join(deploy(variables)))  # noqa: T201
    except TicklineError as error:
        print(redact(str(error)), file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
