"""One owner of a promotion."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model_code.repository.lease import PromotionRunningError, owned, owners

OWN = (
    "import sys; from pathlib import Path; from model_code.repository.lease import owned\n"
    "with owned(Path(sys.argv[1]), 3, 'brave-fox', 'run-3'):\n"
    "    print('owned', flush=True); sys.stdin.read()"
)


def owner(state: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"owned\n"
    return process


def test_a_second_owner_is_refused_by_name_until_the_first_ends(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        with (
            pytest.raises(
                PromotionRunningError,
                match=rf"brave-fox, the promotion of version 3, is running \(pid {process.pid}\)",
            ),
            owned(tmp_path, 3),
        ):
            pass
        with owned(tmp_path, 4):  # another version
            assert {one.version for one in owners(tmp_path)} == {3, 4}
        assert process.stdin is not None
        process.stdin.close()
    with owned(tmp_path, 3):
        pass
    assert owners(tmp_path) == ()


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        assert [one.flow_run_id for one in owners(tmp_path)] == ["run-3"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "owners" / "3.json").exists()
    assert owners(tmp_path) == ()
    with owned(tmp_path, 3):
        pass


def test_the_owner_may_own_it_again(tmp_path: Path) -> None:
    with owned(tmp_path, 3):
        with owned(tmp_path, 3, "brave-fox", "run-3"):
            pass
        assert [one.version for one in owners(tmp_path)] == [3], "the inner block does not free it"
    assert owners(tmp_path) == ()
