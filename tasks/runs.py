"""The beginning and the end of a flow run: one MLflow parent run, one flow at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout
from prefect.artifacts import create_link_artifact
from prefect.exceptions import Pause
from prefect.runtime import flow_run

from model_code import __version__
from model_code.errors import TicklineError
from model_code.settings import NightlySpec, Settings
from tasks import tracking
from tasks.stage import RunRef


class BusyError(TicklineError):
    """Another flow of this home folder is at work."""


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock; the system frees it however the process dies.

    Raises:
        BusyError: another process holds it.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    holder = settings.home / "nightly.pid"
    lock = FileLock(settings.home / "nightly.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        raise BusyError(
            f"another nightly is at work (process {pid})",
            where=str(settings.home),
            remedy="wait for it, or give this one a home of its own: TICKLINE_HOME=...",
        ) from error
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def tracked(settings: Settings, spec: NightlySpec, *, simulated: bool) -> Iterator[RunRef]:
    """One parent MLflow run for this flow run; a retried flow run continues its own.

    The MLflow run carries the Prefect run's id and address, the Prefect run a link to MLflow's.
    """
    mlflow = tracking.client(settings)
    flow_run_id, name = str(flow_run.id), str(flow_run.name)
    run_id = tracking.continue_or_start(
        mlflow,
        settings,
        name=name,
        identity={tracking.FLOW_RUN_TAG: flow_run_id},
        tags={
            "prefect.flow_run_name": name,
            "prefect.flow_run_url": f"{settings.prefect_ui_url}/runs/flow-run/{flow_run_id}",
            "tickline.version": __version__,
            "tickline.simulated": str(simulated).lower(),
            "tickline.market": str(spec.market),
            "mlflow.source.git.commit": tracking.code_commit(),
        },
    )
    experiment = tracking.experiment_id(mlflow, settings)
    create_link_artifact(
        link=f"{settings.mlflow_ui_url}/#/experiments/{experiment}/runs/{run_id}",
        link_text="MLflow run",
        key="mlflow-run",
        description="Parameters, curves, plots, engines and the model of this run.",
    )
    tracking.log_params(mlflow, run_id, tracking.flatten(spec))
    tracking.log_environment(mlflow, run_id)
    run = RunRef(settings=settings, mlflow_run_id=run_id, flow_run_id=flow_run_id)
    try:
        yield run
    except Pause:
        raise
    except BaseException as error:
        mlflow.set_tag(run_id, "tickline.error", str(error)[:500] or type(error).__name__)
        tracking.finish(mlflow, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    if "tickline.error" in mlflow.get_run(run_id).data.tags:  # of an earlier attempt
        mlflow.delete_tag(run_id, "tickline.error")
    tracking.finish(mlflow, run_id, "FINISHED")
