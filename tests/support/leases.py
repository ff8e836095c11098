"""Leases of this process, and processes of other homes that hold one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect import get_client

from infra.leases import lease
from model_code.settings import Settings


def revoke_leases() -> None:
    """End every lease of this process on the server, and wait until it has noticed."""
    held = tuple(lease._held.values())
    assert held
    with get_client(sync_client=True) as client:
        for one in held:
            client.release_concurrency_slots_with_lease(UUID(one.holder.lease_id))
    for _ in range(300):
        if all(one.lost for one in held):
            return
        time.sleep(0.1)
    raise AssertionError("it did not notice within 30 s")


@contextmanager
def held_elsewhere(settings: Settings, home: Path, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another home that shares the store: its process runs `code`, an expression to enter."""
    program = (
        "import time\n"
        "from model_code.settings import Settings\n"
        "from infra.leases.lease import hold_lease\n"
        "from infra.leases.promotion import own_promotion\n"
        "from tasks.runs.lock import hold_lock\n"
        f"with {code}:\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    variables = {"TICKLINE_STORE": str(settings.store), "TICKLINE_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | variables
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()
