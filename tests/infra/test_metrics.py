import datetime as dt
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.metrics import METRICS, PushError, push, samples, serve, write
from infra.servers import HOST, free_port
from model_code.errors import TicklineError
from model_code.monitoring.history import Due, History
from tests.support.nights import NOW, night, sight


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def values(seen: History, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for found, labels, value in samples(seen) if found == name}


def test_the_textfile_describes_the_newest_run(tmp_path: Path) -> None:
    write(sight(night(0), night(1)), tmp_path / "tickline.prom")
    found = read((tmp_path / "tickline.prom").read_text())
    assert found["tickline_auc", (("model", "candidate"),)] == 0.7
    assert found["tickline_auc", (("model", "baseline"),)] == 0.72
    labels = (("engine", "openvino-fp32"), ("quantile", "0.99"))
    assert found["tickline_latency_seconds", labels] == pytest.approx(0.00625)
    stage = (("stage", "train"), ("state", "Completed"))
    assert found["tickline_nightly_stage_duration_seconds", stage] == 500
    assert found["tickline_rows_quarantined", ()] == 7
    assert found["tickline_verdict", (("verdict", "pass"),)] == 1
    assert found["tickline_verdict", (("verdict", "fail"),)] == 0
    since = found["tickline_champion_since_timestamp_seconds", (("version", "3"),)]
    assert since == (NOW - dt.timedelta(days=10, hours=2)).timestamp()
    end = found["tickline_exception_end_timestamp_seconds", (("owner", "ada"), ("version", "3"))]
    assert 0 < end - NOW.timestamp() <= 86400


def test_a_running_run_does_not_hide_the_newest_judged_run() -> None:
    running = night(0, status="RUNNING", seconds=None, verdict=None, metrics={"rows": 5.0})
    seen = sight(running, night(1))
    assert values(seen, "auc")["candidate",] == pytest.approx(0.71)
    assert values(seen, "rows") == {(): 5.0}
    assert values(seen, "nightly_status")["RUNNING", "false"] == 1
    assert values(seen, "nightly_duration_seconds") == {(): 601.0}
    assert values(seen, "nights")["FINISHED",] == 1


def test_a_failed_run_does_not_change_the_last_success() -> None:
    seen = sight(night(0, status="FAILED", verdict=None), night(1))
    ended = night(1).ended
    assert ended is not None
    assert values(seen, "nightly_success_timestamp_seconds") == {(): ended.timestamp()}


def test_unknown_values_are_absent_not_zero() -> None:
    silent = History(nights=(), champion=None, sources={"mlflow": False, "prefect": False})
    assert {name for name, _, _ in samples(silent)} == {"source_up"}
    assert set(values(silent, "source_up").values()) == {0.0}


def test_a_missed_night_is_said_with_its_reason() -> None:
    start = NOW - dt.timedelta(hours=7)
    seen = {"due": Due(start=start, deadline=start + dt.timedelta(hours=4))}
    for nights, reason in (
        ((night(0), night(1)), None),
        ((night(1),), "none"),
        ((), "none"),
        ((night(0, status="CANCELLED"), night(1)), "cancelled"),
        ((night(0, status="FAILED"), night(1)), "failed"),
        ((night(0, status="KILLED"),), "failed"),
        ((night(0, status="RUNNING", seconds=None),), "running"),
        ((night(0, status="FAILED"), night(0)), None),  # one by hand after the one that failed
    ):
        found = values(sight(*nights, **seen), "nightly_missed")
        assert set(found) == {("none",), ("running",), ("cancelled",), ("failed",)}
        assert {name for (name,), value in found.items() if value} == {reason} - {None}
    assert values(sight(night(1)), "nightly_missed") == {}  # nothing is scheduled
    away = sight(sources={"mlflow": False, "prefect": True}, **seen)
    assert values(away, "nightly_missed") == {}  # not known: the alert on the source says so


def test_every_sample_is_declared() -> None:
    due = Due(start=NOW, deadline=NOW)
    for name, labels, _ in samples(sight(night(0), due=due)):
        assert len(METRICS[name][1]) == len(labels)
    # and every declared metric has a source, except those missing in this run
    said = {name for name, _, _ in samples(sight(night(0), due=due))}
    assert set(METRICS) - said == {"throughput_windows_per_second"}


def test_scrapes_are_served_on_loopback_with_fresh_data() -> None:
    port, nights = free_port(), [night(1)]
    stop = serve(lambda: sight(*nights), port)
    try:
        url = f"http://{HOST}:{port}/metrics"
        assert read(httpx.get(url).text)["tickline_nightly_duration_seconds", ()] == 601
        nights.insert(0, night(0))
        assert read(httpx.get(url).text)["tickline_nightly_duration_seconds", ()] == 600
        with pytest.raises(TicklineError, match="cannot serve metrics"):
            serve(sight, port)
    finally:
        stop()


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A push gateway's URL, and the requests it received."""
    pushed: list[tuple[str, str]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            pushed.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = HTTPServer((HOST, 0), Gateway)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}", pushed
    server.shutdown()
    server.server_close()
    thread.join()


def test_metrics_are_pushed_in_the_gateways_format(
    gateway: tuple[str, list[tuple[str, str]]],
) -> None:
    url, pushed = gateway
    push(sight(night(0)), url)
    ((path, body),) = pushed
    assert path == "/metrics/job/tickline"
    assert read(body)["tickline_rows", ()] == 1000
    with pytest.raises(PushError, match="does not accept the metrics") as caught:
        push(sight(night(0)), f"http://someone:hush@{HOST}:{free_port()}")
    assert "hush" not in str(caught.value)
