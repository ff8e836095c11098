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


def test_ray_runs_here_or_at_an_address() -> None:
    from prefect_ray.task_runners import RayTaskRunner

    local, remote = task_runner("ray:3"), task_runner("ray://10.0.0.1:10001")
    assert isinstance(local, RayTaskRunner)
    assert local.address is None
    assert local.init_kwargs["num_cpus"] == 3
    assert local == local.duplicate()
    assert isinstance(remote, RayTaskRunner)
    assert remote.address == "ray://10.0.0.1:10001"


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_without_it_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.delitem(sys.modules, "infra.cluster.ray_runner", raising=False)
    monkeypatch.setitem(sys.modules, f"prefect_{kind}.task_runners", None)
    with pytest.raises(
        ConfigError, match=rf"prefect_{kind}\.task_runners, which is not installed"
    ) as caught:
        task_runner(f"{kind}:2")
    assert f"tickline[{kind}]" in caught.value.remedy
