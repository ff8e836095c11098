import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.exit_with_parent import launcher

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


SPEAKER = (
    "import os, subprocess, sys\n"
    "print('postgresql://desk:hush-hush@db/x', flush=True)\n"
    "os.write(2, b'the password is correct horse\\n')\n"
    "os.write(1, b'\\xff not text, ' + b'x' * 200_000 + b'\\n')\n"
    "subprocess.run([sys.executable, '-c', 'print(\"of a child\")'])\n"
    "os.write(1, b'without an end of line')\n"
)


def test_the_output_of_a_service_reaches_its_log_without_secrets(tmp_path: Path) -> None:
    log = tmp_path / "log"
    held, other = os.pipe()  # the parent's end of standard input stays open
    with log.open("ab") as output:
        done = subprocess.run(
            [*launcher(), sys.executable, "-c", SPEAKER],
            stdin=held,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TICKLINE_AUTH_PASSWORD": "correct horse"},
            check=False,
        )
    os.close(held)
    os.close(other)
    assert done.returncode == 0
    found = log.read_bytes()
    assert b"postgresql://***@db/x" in found
    assert b"the password is ***" in found
    assert b"horse" not in found
    assert b"hush" not in found
    assert b"\xff not text, xxx" in found
    assert found.count(b"x") >= 200_000
    assert b"of a child" in found
    assert found.endswith(b"without an end of line")
