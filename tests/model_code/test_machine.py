"""CPU quotas, from planted control groups of both versions."""

import os
from pathlib import Path

import psutil
import pytest

from model_code import machine

V2 = "0::/user.slice/app\n"
V1 = "9:name=systemd:/\n4:memory:/docker/a1\n3:cpu,cpuacct:/docker/a1\n"


def plant(root: Path, groups: str, files: dict[str, str]) -> float | None:
    """The quota found with these files below the mount, and these lines of the process."""
    own = root / "self"
    own.write_text(groups)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return machine.cpu_quota(root / "cgroup", own)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (V2, {"user.slice/app/cpu.max": "150000 100000"}, 1.5),
        (V2, {"user.slice/app/cpu.max": "max 100000"}, None),
        (V2, {"user.slice/app/cpu.max": "max 100000", "user.slice/cpu.max": "200000 100000"}, 2.0),
        (V2, {"user.slice/app/cpu.max": "300000 100000", "user.slice/cpu.max": "50000 50000"}, 1.0),
        ("0::/\n", {"cpu.max": "400000 100000"}, 4.0),
        (V2, {"cpu.max": "400000 100000"}, 4.0),  # a container: the path is the host's
        (V2, {}, None),
        (
            V1,
            {
                "cpu,cpuacct/docker/a1/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/a1/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1 + "0::/\n", {"unified/cpu.max": "100000 100000"}, 1.0),
        (V1, {"memory/docker/a1/cpu.max": "100000 100000"}, None),
    ],
)
def test_the_smallest_limit_of_the_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], expected: float | None
) -> None:
    assert plant(tmp_path, groups, files) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert machine.cpu_quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (3.9, 3), (0.5, 1), (16.0, 8)], ids=["none", "3.9", "0.5", "16"]
)
def test_cores_are_those_of_the_quota(
    quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda **_: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.physical_cores() == cores
    assert machine.facts()["cores"] == str(cores)


def test_cores_are_those_that_the_process_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda **_: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: None)
    assert machine.physical_cores() == 2
