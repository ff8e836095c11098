import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUNAWAY = (
    "import os, pathlib, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
    "time.sleep(600)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
@pytest.mark.parametrize("end", ["killed", "parent gone"])
def test_no_descendant_outlives_the_launcher(tmp_path: Path, end: str) -> None:
    written = tmp_path / "pid"
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "infra.exit_with_parent",
            sys.executable,
            "-c",
            RUNAWAY,
            str(written),
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdin
    deadline = time.monotonic() + 30
    while not (written.exists() and written.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runaway = int(written.read_text())
    if end == "killed":
        (command,) = psutil.Process(launcher.pid).children()
        os.kill(command.pid, signal.SIGKILL)
    else:
        launcher.stdin.close()
    status = launcher.wait(30)
    launcher.stdin.close()
    assert status == 256 - (signal.SIGKILL if end == "killed" else signal.SIGTERM)
    while psutil.pid_exists(runaway):
        assert time.monotonic() < deadline + 30
        time.sleep(0.02)
