"""At most one event a date, accepted once, sent again while Prefect is away."""

import datetime as dt
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from infra.live.feedback import drift_event
from infra.live.feedback.drift_event import LIVE_DRIFT, DriftEvents, read
from model_code.live.feedback.figures import Figures
from model_code.settings import Settings

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FIGURES = Figures(
    version=7, from_ns=0, until_ns=1, decisions=900, unlabelled=0, auc=0.5,
    psi={"spread": 0.9}, limits={"spread": 0.25}, breaches=("PSI of spread 0.90, limit 0.25",),
)  # fmt: skip


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a receiver, and the events it has."""
    found: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/events"
            found.extend(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api", found
    server.shutdown()
    server.server_close()
    thread.join()


def events(folder: Path, url: str | None) -> DriftEvents:
    settings = Settings(home=folder / "home", prefect_api_url=url)
    return DriftEvents(folder / "drift", "desk", settings)


def test_a_date_is_claimed_once_by_all_services_and_after_a_restart(
    tmp_path: Path, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, found = received
    first, second = events(tmp_path, url), events(tmp_path, url)
    assert first.send(NOW) is None  # nothing is claimed
    assert first.claim(FIGURES, 3, NOW)
    assert not second.claim(FIGURES, 6, NOW + dt.timedelta(hours=11))
    assert second.send(NOW) is True  # whoever comes first
    assert first.send(NOW) is None
    assert events(tmp_path, url).send(NOW) is None
    (one,) = found
    assert one["event"] == LIVE_DRIFT
    assert one["resource"]["prefect.resource.id"] == "tickline.live.desk"
    assert one["payload"]["breaches"] == list(FIGURES.breaches)
    assert one["payload"]["figures"]["psi_spread"] == 0.9
    assert read(tmp_path / "drift" / "2026-03-01.json").figures == FIGURES
    tomorrow = NOW + dt.timedelta(days=1)
    assert second.claim(FIGURES, 9, tomorrow)
    assert second.send(tomorrow) is True
    assert found[1]["id"] != one["id"]


def test_while_prefect_is_away_the_claim_waits(
    tmp_path: Path, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, found = received
    away = events(tmp_path, "http://127.0.0.1:9/api")
    assert away.claim(FIGURES, 3, NOW)
    assert away.send(NOW) is False
    assert events(tmp_path, None).send(NOW) is False  # no server is known
    assert found == []
    assert events(tmp_path, url).send(NOW) is True
    assert len(found) == 1


def test_a_claim_of_yesterday_is_not_sent(tmp_path: Path) -> None:
    late = events(tmp_path, "http://127.0.0.1:9/api")
    assert late.claim(FIGURES, 3, NOW)
    assert late.send(NOW + dt.timedelta(days=1)) is None


def test_prefect_keeps_one_event_of_several_services(tmp_path: Path, prefect_url: str) -> None:
    """Services that share no folder: the id is the same, so the server has one event."""
    now = dt.datetime.now(dt.UTC)
    for name in ("one", "two"):
        alone = events(tmp_path / name, prefect_url)
        assert alone.claim(FIGURES, 3, now)
        assert alone.send(now) is True
    asked = {"filter": {"event": {"name": [LIVE_DRIFT]}}}
    until = dt.datetime.now() + dt.timedelta(seconds=20)
    kept: list[dict[str, Any]] = []
    while not kept and dt.datetime.now() < until:
        answer = httpx.post(f"{prefect_url}/events/filter", json=asked, trust_env=False)
        kept = answer.raise_for_status().json()["events"]
    assert [one["resource"]["prefect.resource.id"] for one in kept] == ["tickline.live.desk"]
    assert drift_event.event(read(next((tmp_path / "one" / "drift").glob("*.json"))), now)[
        "id"
    ] == str(kept[0]["id"])
