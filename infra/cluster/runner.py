"""The task runner that `--cluster` names.

Sources: Prefect's documentation, task runners; prefect-dask's, `DaskTaskRunner`.
"""

from typing import TYPE_CHECKING, Any

from model_code.errors import ConfigError
from model_code.settings.cluster import DASK, PROCESSES, RAY, Cluster

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner


def task_runner(cluster: Cluster) -> "TaskRunner[Any]":
    """A runner that is not started yet; use it as a context.

    Args:
        cluster: `processes:N`; `dask:N` or `ray:N` (N worker processes on this machine, for as long
            as the context is open); the address of a Dask scheduler, `tcp://HOST:PORT` or
            `tls://HOST:PORT`; that of Ray's client server, `ray://HOST:PORT`.

    Raises:
        ConfigError: Dask or Ray is not installed.
    """
    kind, _, count = cluster.partition(":")
    if kind == PROCESSES:
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=int(count))
    extra = RAY if kind == RAY else DASK
    try:
        return _ray(cluster) if kind == RAY else _dask(cluster)
    except ImportError as error:
        raise ConfigError(
            f"a {extra.capitalize()} cluster needs {error.name}, which is not installed",
            where=f"cluster {cluster}",
            remedy=f"pip install 'tickline[{extra}]', or use --cluster processes:2",
        ) from error


def _dask(cluster: str) -> "TaskRunner[Any]":
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    # its workers and its client announce every connection at INFO
    dask.config.set({"logging.distributed": "warning"})
    kind, _, count = cluster.partition(":")
    if kind == DASK:
        return DaskTaskRunner(
            cluster_kwargs={
                "n_workers": int(count),
                "threads_per_worker": 1,  # Great Expectations keeps its context in the process
                "dashboard_address": "127.0.0.1:0",  # any free port
            }
        )
    return DaskTaskRunner(address=cluster)


def _ray(cluster: str) -> "TaskRunner[Any]":
    from infra.cluster.ray_runner import LocalRayRunner, ray_at

    count = cluster.partition(":")[2]
    return LocalRayRunner(int(count)) if count.isdigit() else ray_at(cluster)
