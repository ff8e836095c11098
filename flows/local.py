"""Run or rerun a flow in this process, beside a Prefect server that is started if none answers.

Prefect reads the environment when it is first imported, so it is imported inside functions, after
the environment is set.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from infra.servers import environment, prefect_server
from infra.triton.install import install
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from flows.bench import Bench
    from flows.summary import Outcome

FLOW = "nightly"


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Run the block in Tickline's Prefect and MLflow environment, a Prefect server answering."""
    os.environ.update(environment(settings))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # stages announce themselves
    with prefect_server(settings) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect.settings import (
            PREFECT_API_URL,
            PREFECT_HOME,
            PREFECT_LOCAL_STORAGE_PATH,
            temporary_settings,
        )

        # the same once more, for a process that had imported Prefect before
        names = (PREFECT_API_URL, PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH)
        with temporary_settings({name: os.environ[name.name] for name in names}):
            yield


def run_nightly(spec: NightlySpec, settings: Settings, *, refresh: bool = False) -> "Outcome":
    """Run the nightly flow here and return its outcome.

    Raises:
        TicklineError: a stage failed; finished stages are kept for the rerun.
    """
    with connected(settings):
        from flows.nightly import nightly

        return nightly(spec, refresh=refresh)


def run_bench(spec: NightlySpec, settings: Settings, repeat: int) -> "tuple[Bench, ...]":
    """Run the benchmark flow here and return each measurement.

    Raises:
        TicklineError: a stage failed.
    """
    install(settings, say=print)  # the row `triton-grpc`
    with connected(settings):
        from flows.bench import bench

        return bench(spec, repeat=repeat)


def rerun_nightly(settings: Settings, run: str | None) -> "Outcome | None":
    """Go on with a nightly that failed, crashed or was killed, in the same flow run.

    Args:
        run: the flow run's name or id; None for the newest one that is not completed.

    Returns:
        The outcome, or None where a worker will pick the run up.

    Raises:
        ConfigError: no such run, it is completed, or it is still at work.
    """
    _require_idle(settings)
    with connected(settings):
        from prefect import get_client
        from prefect.flow_engine import run_flow
        from prefect.states import Scheduled

        from flows.nightly import nightly

        with get_client(sync_client=True) as client:
            found = _find(run)
            client.set_flow_run_state(found.id, Scheduled(message="tickline rerun"), force=True)
            if found.deployment_id:
                return None
            found = client.read_flow_run(found.id)
        # what was computed afresh before it died need not be computed afresh again
        parameters = nightly.validate_parameters(found.parameters | {"refresh": False})
        outcome: Outcome = run_flow(nightly, flow_run=found, parameters=parameters)  # type: ignore[assignment]
        return outcome


def _require_idle(settings: Settings) -> None:
    # a run that was killed still reads RUNNING in Prefect; the lock tells the living from the dead
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.home / "nightly.lock", timeout=0):
            return
    except Timeout as error:
        raise ConfigError(
            "a nightly is at work just now",
            where=str(settings.home),
            remedy="wait for it; only one that has ended can be rerun",
        ) from error


def _find(run: str | None) -> "FlowRun":
    from prefect import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    from tasks.runs import BusyError

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
    # runs that wait for their hour, or were refused beside another, have nothing to go on with
    open_runs = [
        found
        for found in runs
        if found.start_time
        and found.state
        and not found.state.is_completed()
        and BusyError.__name__ not in (found.state.message or "")
    ]
    if run is None:
        if not open_runs:
            raise ConfigError(
                "no nightly to rerun: every one is completed", remedy="start one: tickline nightly"
            )
        return open_runs[0]
    for found in runs:
        if run in {found.name, str(found.id)}:
            if found not in open_runs:
                raise ConfigError(
                    f"nightly {run} is completed: nothing is left to rerun",
                    remedy="tickline nightly --refresh computes everything again",
                )
            return found
    raise ConfigError(
        f"no nightly named {run}",
        remedy="rerun one of: " + (", ".join(found.name for found in open_runs[:5]) or "none open"),
    )
