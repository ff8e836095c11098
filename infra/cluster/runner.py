"""The task runner that `--cluster` names.

Sources: Prefect's documentation, task runners; prefect-dask's, `DaskTaskRunner`.
"""

from typing import TYPE_CHECKING, Any

from model_code.errors import ConfigError
from model_code.settings.cluster import DASK, PROCESSES, Cluster

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner


def task_runner(cluster: Cluster) -> "TaskRunner[Any]":
    """A runner that is not started yet; use it as a context.

    Args:
        cluster: `processes:N`, `dask:N` (a temporary cluster of N worker processes on this
            machine) or the address of a Dask scheduler, `tcp://HOST:PORT` or `tls://HOST:PORT`.

    Raises:
        ConfigError: Dask is not installed.
    """
    kind, _, count = cluster.partition(":")
    if kind == PROCESSES:
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=int(count))
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise ConfigError(
            f"a Dask cluster needs {error.name}, which is not installed",
            where=f"cluster {cluster}",
            remedy="pip install 'tickline[dask]', or use --cluster processes:2",
        ) from error
    # its workers and its client announce every connection at INFO
    dask.config.set({"logging.distributed": "warning"})
    if kind == DASK:
        return DaskTaskRunner(
            cluster_kwargs={
                "n_workers": int(count),
                "threads_per_worker": 1,  # Great Expectations keeps its context in the process
                "dashboard_address": None,
            }
        )
    return DaskTaskRunner(address=cluster)
