import time
from pathlib import Path

import pytest
import typer

from flows.demos.promotion import Clients
from infra.servers import HOST, free_port
from model_code.repository.route import Route, Target
from model_code.settings import MODEL_NAME
from tests.support.serving import staged


def test_lost_requests_end_the_demo(tmp_path: Path) -> None:
    route = tmp_path / "route.json"
    Route(champion=Target(model=MODEL_NAME, version=1)).save(route)
    with Clients(f"{HOST}:{free_port()}", route, staged(tmp_path / "staging", 1)) as clients:
        deadline = time.monotonic() + 30
        while not clients.failed and time.monotonic() < deadline:
            time.sleep(0.05)
    assert clients.failed == clients.asked > 0
    with pytest.raises(typer.Exit):
        clients.report()
