"""Which versions have a model process that runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from infra.triton.stubs import Stubs
from model_code.settings import MODEL_NAME

Start = Callable[[str], psutil.Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a child of this process with a model's file on its command line."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: str) -> psutil.Process:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", path]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return psutil.Process(started[-1].pid)

    yield start
    for one in started:
        one.kill()
        one.communicate()


def becomes(process: psutil.Process, status: str) -> None:
    end = time.monotonic() + 30
    while process.status() != status:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_version_is_lacking_once_its_process_is_dead(start: Start) -> None:
    stubs, here = Stubs(), os.getpid()
    assert stubs.lacking(here, (1, 2)) == {1, 2}
    one = start(f"/serving/{MODEL_NAME}/1/model.onnx")
    start(f"/serving/{MODEL_NAME}/2/model.onnx")
    start("/serving/financial_predictor_candidate/3/model.onnx")
    assert stubs.lacking(here, (1, 2, 3)) == {3}
    one.kill()
    becomes(one, psutil.STATUS_ZOMBIE)
    assert stubs.lacking(here, (1, 2)) == {1}


def test_a_stopped_process_is_killed_in_the_second_look(start: Start) -> None:
    stubs, here = Stubs(), os.getpid()
    one = start(f"/serving/{MODEL_NAME}/1/model.onnx")
    one.suspend()
    becomes(one, psutil.STATUS_STOPPED)
    assert stubs.lacking(here, (1,)) == set(), "a debugger may stop it for a moment"
    one.resume()
    becomes(one, psutil.STATUS_SLEEPING)
    assert stubs.lacking(here, (1,)) == set()
    one.suspend()
    becomes(one, psutil.STATUS_STOPPED)
    assert stubs.lacking(here, (1,)) == set()
    assert stubs.lacking(here, (1,)) == {1}
    becomes(one, psutil.STATUS_ZOMBIE)


def test_a_server_that_is_gone_has_none() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert Stubs().lacking(gone.pid, (1,)) == {1}
