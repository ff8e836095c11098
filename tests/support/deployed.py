"""A flow of a second for workers: named like the nightly, it fails until a file exists."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from prefect import flow, get_client, task
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

ROOT = Path(__file__).resolve().parents[2]


@task(name="check file")
def check(path: str) -> None:
    """Fail where there is no such file."""
    Path(path).read_bytes()


@flow(name="nightly")
def nightly(path: str) -> None:
    """Need the file."""
    check(path)


@contextmanager
def scheduled(path: Path) -> Iterator[tuple[str, FlowRun]]:
    """Name of a work pool of its own, and a run that waits there for a worker."""
    name = f"test-{uuid4()}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        deployment = client.create_deployment(
            client.create_flow(nightly),
            name,
            entrypoint=f"{Path(__file__).relative_to(ROOT)}:nightly",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
            ],
            work_pool_name=name,
        )
        run = run_deployment(deployment, parameters={"path": str(path)}, timeout=0)
        assert isinstance(run, FlowRun)
        try:
            yield name, run
        finally:
            client.delete_flow_run(run.id)
            client.delete_deployment(deployment)
            client.delete_work_pool(name)
