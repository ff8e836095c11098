import os
import subprocess
import sys
import time

import psutil
import pytest

from infra.process import ProcessId, birth, cpu_seconds


def test_the_own_identity_is_alive_and_survives_json() -> None:
    mark = ProcessId.own()
    assert mark.here
    assert mark.lives
    assert (
        ProcessId.model_validate_json(mark.model_dump_json()) == mark == ProcessId.of(os.getpid())
    )


def test_a_dead_process_a_reused_pid_and_another_boot_are_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = ProcessId.of(child.pid)
    assert mark.lives
    child.kill()
    deadline = time.monotonic() + 20
    while birth(child.pid) is not None and time.monotonic() < deadline:  # a zombie now
        time.sleep(0.01)
    assert not mark.lives
    child.communicate()
    assert not mark.lives
    with pytest.raises(psutil.NoSuchProcess):
        ProcessId.of(child.pid)
    own = ProcessId.own()
    assert not own.model_copy(update={"birth": "1"}).lives
    assert not own.model_copy(update={"boot": "before"}).lives
    assert not own.model_copy(update={"host": "elsewhere"}).here


def test_a_process_that_ended_takes_no_time() -> None:
    assert cpu_seconds({"gone": 2**22 + 1}) == {"gone": 0.0}


def test_a_busy_process_takes_time() -> None:
    before = cpu_seconds({"own": os.getpid()})["own"]
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert cpu_seconds({"own": os.getpid()})["own"] > before
