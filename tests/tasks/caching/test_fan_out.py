"""A stage mapped over instrument-days gives the same here, in processes and on Dask."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prefect import flow

from model_code.settings import Settings
from tasks.caching.fan_out import fan_out
from tasks.caching.stage import RunRef
from tests.support.counted import square, traces

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _threads_know_the_server(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that sets PREFECT_API_URL before it imports Prefect.

    The pool's own thread does not see `temporary_settings` and would start a server.
    """
    from prefect import context

    monkeypatch.setattr(context, "GLOBAL_SETTINGS_CONTEXT", context.SettingsContext.get())


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
def scheduler() -> Iterator[str]:
    """A Dask cluster of somebody else; its address."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def test_results_are_in_the_order_of_the_calls_wherever_they_run(home: Settings) -> None:
    numbers = tuple(range(5))
    squares = tuple(number * number for number in numbers)
    assert mapped(home, None, numbers) == squares
    assert {pid for _, pid in traces(home.home / "traces")} == {os.getpid()}
    # the content keys find them again, from other processes too
    assert mapped(home, "processes:2", numbers) == squares
    assert len(traces(home.home / "traces")) == len(numbers)


@pytest.mark.parametrize("cluster", ["processes:2", "dask:2", "address"])
def test_they_run_in_the_workers(home: Settings, cluster: str) -> None:
    numbers = (2, 3, 4)
    if cluster == "address":
        with scheduler() as address:
            assert mapped(home, address, numbers) == (4, 9, 16)
    else:
        assert mapped(home, cluster, numbers) == (4, 9, 16)
    found = traces(home.home / "traces")
    assert [number for number, _ in found] == [2, 3, 4]
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.parametrize("cluster", [None, "processes:2", "dask:2"])
def test_the_first_failure_is_raised_as_it_is(home: Settings, cluster: str | None) -> None:
    with pytest.raises(ValueError, match="thirteen"):
        mapped(home, cluster, (1, 13))


def test_a_killed_worker_costs_only_what_it_had_in_hand(home: Settings) -> None:
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
    found = mapped(home, "dask:2", numbers, seconds=0.5)
    killer.join()
    assert found == tuple(number * number for number in numbers)
    assert len(killed) == 1
    executions = [number for number, _ in traces(folder)]
    assert set(executions) == set(numbers)
    assert len(executions) <= len(numbers) + 1, "more than what the killed worker had in hand"
