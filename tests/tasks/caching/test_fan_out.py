"""A stage mapped over instrument-days gives the same here, in processes, on Dask and on Ray."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from tempfile import TemporaryDirectory
from unittest import mock

import psutil
import pytest
from prefect import flow

from infra.cluster.ray_runner import STORE_BYTES
from infra.exit_with_parent import kill_tree, launcher
from infra.servers import free_ports
from model_code.settings import Settings
from tasks.caching.fan_out import fan_out
from tasks.caching.stage import RunRef
from tests.support.counted import square, traces

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pools_know_the_server")]


def mapped(
    home: Settings, cluster: str | None, numbers: tuple[int, ...], seconds: float = 0.0
) -> tuple[int, ...]:
    run = RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")

    @flow(name="fan-out")
    def mapping() -> tuple[int, ...]:
        calls = [{"run": run, "number": number, "seconds": seconds} for number in numbers]
        return fan_out(cluster, square, calls)

    return mapping()


@contextmanager
def dask_address() -> Iterator[str]:
    """A Dask cluster of somebody else; its address."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def ray_address() -> Iterator[str]:
    """A Ray cluster of somebody else; the address of its client server."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    port, client_port = free_ports(2)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    options = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "ray-client-server-port": client_port,
        "min-worker-port": 0,  # else a range that may hold the ports above
        "max-worker-port": 0,
        "num-cpus": 1,
        "include-dashboard": "false",
        "object-store-memory": STORE_BYTES,
    }
    command = [*launcher(), sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
    command += [
        "--disable-usage-stats",
        "--block",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with mock.patch.dict(os.environ, variables), TemporaryDirectory(dir="/tmp") as folder:
        reset_auth_token_state()  # this process may have used Ray with another token
        head = psutil.Popen(
            [*command, f"--temp-dir={folder}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"ray://127.0.0.1:{client_port}"
        finally:
            kill_tree(head)
            head.stdin.close()
            head.wait()
    reset_auth_token_state()


def test_results_are_in_the_order_of_the_calls_wherever_they_run(home: Settings) -> None:
    numbers = tuple(range(5))
    squares = tuple(number * number for number in numbers)
    assert mapped(home, None, numbers) == squares
    assert {pid for _, pid in traces(home.home / "traces")} == {os.getpid()}
    # the content keys find them again, from other processes too
    assert mapped(home, "processes:2", numbers) == squares
    assert len(traces(home.home / "traces")) == len(numbers)


@pytest.mark.parametrize("cluster", ["processes:2", "dask:2", "ray:2", dask_address, ray_address])
def test_they_run_in_the_workers(
    home: Settings, cluster: str | Callable[[], AbstractContextManager[str]]
) -> None:
    with nullcontext(cluster) if isinstance(cluster, str) else cluster() as address:
        assert mapped(home, address, (2, 3, 4)) == (4, 9, 16)
    found = traces(home.home / "traces")
    assert [number for number, _ in found] == [2, 3, 4]
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.parametrize("cluster", [None, "processes:2", "dask:2", "ray:2"])
def test_the_first_failure_is_raised_as_it_is(home: Settings, cluster: str | None) -> None:
    with pytest.raises(ValueError, match="thirteen"):
        mapped(home, cluster, (1, 13))


@pytest.mark.parametrize("cluster", ["dask:2", "ray:2"])
def test_a_killed_worker_costs_only_what_it_had_in_hand(home: Settings, cluster: str) -> None:
    """Dask computes finished tasks of a dead worker again: their results come back Cached."""
    numbers, folder = tuple(range(20, 32)), home.home / "traces"
    killed: list[int] = []

    def kill() -> None:
        while len(traces(folder)) < 6:
            time.sleep(0.05)
        killed.append(traces(folder)[-1][1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = mapped(home, cluster, numbers, seconds=0.5)
    killer.join()
    assert found == tuple(number * number for number in numbers)
    assert len(killed) == 1
    executions = [number for number, _ in traces(folder)]
    assert set(executions) == set(numbers)
    assert len(executions) <= len(numbers) + 1, "more than what the killed worker had in hand"
