"""`tickline monitor --once` for scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.live.monitoring import page
from infra.live.monitoring.client import ServiceAwayError
from infra.servers import HOST, free_port
from model_code.settings import Settings
from tests.support.cli import tickline
from tests.support.market import SYMBOLS
from tests.support.observed import busy


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path))
    port = free_port()
    stop = page.serve(busy().view(), Settings(home=tmp_path), port)
    yield f"http://{HOST}:{port}"
    stop()


def test_the_state_is_printed_as_text(url: str) -> None:
    found = tickline("monitor", "--once", "--url", url)
    assert found.startswith("state: live, version 7, 8, up 0 min")
    assert SYMBOLS[0] in found


def test_without_a_service_it_fails_and_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ServiceAwayError, match="no live service responds") as error:
        tickline("monitor", "--once", "--url", f"http://{HOST}:{free_port()}")
    assert "tickline live --page PORT" in error.value.remedy
