import sys

import pytest

from infra.cluster.runner import task_runner
from model_code.errors import ConfigError


def test_the_cluster_decides_the_runner() -> None:
    from prefect.task_runners import ProcessPoolTaskRunner
    from prefect_dask.task_runners import DaskTaskRunner

    assert task_runner("processes:3") == ProcessPoolTaskRunner(max_workers=3)
    local, remote = task_runner("dask:3"), task_runner("tcp://10.0.0.1:8786")
    assert isinstance(local, DaskTaskRunner)
    assert local.cluster_kwargs["n_workers"] == 3
    assert local.address is None
    assert isinstance(remote, DaskTaskRunner)
    assert remote.address == "tcp://10.0.0.1:8786"


def test_without_dask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask.task_runners", None)
    with pytest.raises(
        ConfigError, match=r"prefect_dask\.task_runners, which is not installed"
    ) as caught:
        task_runner("dask:2")
    assert "tickline[dask]" in caught.value.remedy
