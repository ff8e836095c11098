import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from flows.demos import postgres
from flows.demos.two_hosts import host_of
from model_code.errors import ConfigError
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.heartbeat import heartbeat_tags

TICKS = "simulated:?seed=3&instruments=1&days=2&minutes=4"
LAST = re.compile(
    r"recovered on the other host: stages cached (\d+), epochs redone 0, "
    r"audit entries (\d+) in one chain"
)


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(1800)
def test_the_story_on_loopback_with_simulated_ticks(tmp_path: Path) -> None:
    try:
        postgres.binaries()
    except ConfigError as error:
        pytest.skip(str(error))
    options = ["--data", TICKS, "--loopback", "--keep", str(tmp_path)]
    # in a process of its own: this one's Prefect has other settings
    done = subprocess.run(
        [sys.executable, "-m", "flows.demos.two_hosts", *options],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout
    assert done.returncode == 0, printed + done.stderr
    assert "two homes on loopback, and no link is cut" in printed
    found = LAST.fullmatch(printed.splitlines()[-1])
    assert found, printed
    assert int(found[1]) >= 5  # days, features, table, split, baseline
    assert int(found[2]) >= 4  # started, approved, promoted, exception renewed


def test_the_host_of_a_run_is_read_from_mlflow(tmp_path: Path) -> None:
    settings, run, tag = Settings(home=tmp_path).resolved(), uuid4(), mlflow_runs.FLOW_RUN_TAG
    mlflow = mlflow_runs.client(settings)
    experiment = mlflow.create_experiment("nights")
    mlflow.create_run(experiment, tags={tag: str(run), **heartbeat_tags()})
    mlflow.create_run(experiment, tags={tag: str(run)})  # nested: no process of its own
    assert host_of(settings, tag, run) == socket.gethostname()
    assert host_of(settings, tag, uuid4()) == ""
