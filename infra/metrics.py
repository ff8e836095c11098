"""The latest nightly runs as Prometheus metrics: served on loopback, as a textfile, or pushed.

Times are Unix time stamps, so that a stale textfile is visible. Durations and latencies are in
seconds. An unknown value is absent, never zero.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import httpx
from prometheus_client import CollectorRegistry, push_to_gateway, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from infra.servers import HOST
from model_code.artifacts import atomic_file
from model_code.benchmark.verdict import Word
from model_code.errors import TicklineError
from model_code.monitoring.history import (
    CANCELLED,
    FINISHED,
    REASONS,
    RUNNING,
    History,
    Night,
)

JOB = "tickline"
VERDICTS = get_args(Word)
STATUSES = (RUNNING, FINISHED, "FAILED", "KILLED", CANCELLED)

# name without the prefix `tickline_` -> help text, labels
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "source_up": ("1 if the store responded to the last query.", ("source",)),
    "nights": (
        "Recent nightly runs, by MLflow's status or CANCELLED by a person.",
        ("status",),
    ),
    "nightly_status": ("1 for the status of the newest nightly run.", ("status", "simulated")),
    "nightly_start_timestamp_seconds": ("Start of the newest nightly run.", ()),
    "nightly_success_timestamp_seconds": ("End of the newest finished nightly run.", ()),
    "nightly_deadline_timestamp_seconds": ("Newest deadline of a scheduled night, passed.", ()),
    "nightly_missed": (
        "1 if no nightly run was finished by the newest deadline, by reason; else 0.",
        ("reason",),
    ),
    "nightly_duration_seconds": ("Duration of the newest ended nightly run.", ()),
    "nightly_stage_duration_seconds": (
        "Duration of each stage of the newest nightly run, with the stage's state.",
        ("stage", "state"),
    ),
    "rows": ("Ticks validated in the newest nightly run.", ()),
    "rows_quarantined": ("Ticks quarantined in the newest nightly run.", ()),
    "auc": ("Area under the ROC curve on the test day, newest judged run.", ("model",)),
    "accuracy": ("Share of correct decisions on the test day, newest judged run.", ("model",)),
    "latency_seconds": ("Latency of the chosen engine at batch 1.", ("engine", "quantile")),
    "throughput_windows_per_second": ("Throughput of the chosen engine in batches.", ("engine",)),
    "verdict": ("1 for the gate's verdict on the newest judged run.", ("verdict",)),
    "champion_since_timestamp_seconds": ("Time of the champion's approval.", ("version",)),
    "exception_end_timestamp_seconds": (
        "End of the exception with which the serving version was approved.",
        ("version", "owner"),
    ),
}


class PushError(TicklineError):
    """The push gateway does not accept the metrics."""


class NightCollector(Collector):
    """Reads the nightly runs at each scrape.

    Args:
        read: reads MLflow and Prefect; called once per scrape.
    """

    def __init__(self, read: Callable[[], History]) -> None:
        self.read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One gauge family per metric; a family without a value is omitted."""
        families = {
            name: GaugeMetricFamily(f"tickline_{name}", text, labels=labels)
            for name, (text, labels) in METRICS.items()
        }
        for name, labels, value in samples(self.read()):
            families[name].add_metric(labels, value)
        return [family for family in families.values() if family.samples]


Sample = tuple[str, tuple[str, ...], float]


def samples(history: History) -> list[Sample]:
    """Every (metric, label values, value) of the nightly runs."""
    found: list[Sample] = [
        ("source_up", (name,), float(up)) for name, up in history.sources.items()
    ]
    if history.sources.get("mlflow"):
        statuses = [night.status for night in history.nights]
        found += [("nights", (status,), float(statuses.count(status))) for status in STATUSES]
    if history.champion:
        champion = history.champion
        since = champion.since.timestamp()
        found.append(("champion_since_timestamp_seconds", (champion.version,), since))
    if history.exception:
        excepted = history.exception
        labels = (str(excepted.version), excepted.owner)
        found.append(("exception_end_timestamp_seconds", labels, excepted.end.timestamp()))
    if history.due and history.sources.get("mlflow"):
        found.append(("nightly_deadline_timestamp_seconds", (), history.due.deadline.timestamp()))
        missed = history.missed()
        found += [("nightly_missed", (reason,), float(reason == missed)) for reason in REASONS]
    newest = history.newest()
    if newest:
        found += _newest(newest)
    finished = history.newest(FINISHED)
    if finished and finished.ended:
        found.append(("nightly_success_timestamp_seconds", (), finished.ended.timestamp()))
    ended = next((night for night in history.nights if night.seconds is not None), None)
    if ended and ended.seconds is not None:
        found.append(("nightly_duration_seconds", (), ended.seconds))
    judged = next((night for night in history.nights if night.verdict), None)
    return found + (_judged(judged) if judged else [])


def _newest(night: Night) -> list[Sample]:
    simulated = str(night.simulated).lower()
    found: list[Sample] = [
        ("nightly_start_timestamp_seconds", (), night.started.timestamp()),
        *(
            ("nightly_status", (status, simulated), float(status == night.status))
            for status in STATUSES
        ),
        *(
            ("nightly_stage_duration_seconds", (stage.name, stage.state), stage.seconds)
            for stage in night.stages
        ),
    ]
    counts = [name for name in ("rows", "rows_quarantined") if name in night.metrics]
    return found + [(name, (), night.metrics[name]) for name in counts]


def _judged(night: Night) -> list[Sample]:
    metrics, engine = night.metrics, night.engine or "unknown"
    verdicts: list[Sample] = [
        ("verdict", (verdict,), float(verdict == night.verdict)) for verdict in VERDICTS
    ]
    known = (
        ("auc", ("candidate",), "auc", 1.0),
        ("auc", ("baseline",), "baseline_auc", 1.0),
        ("accuracy", ("candidate",), "accuracy", 1.0),
        ("accuracy", ("baseline",), "baseline_accuracy", 1.0),
        ("latency_seconds", (engine, "0.5"), "p50_ms", 1e-3),
        ("latency_seconds", (engine, "0.99"), "p99_ms", 1e-3),
        ("throughput_windows_per_second", (engine,), "throughput", 1.0),
    )
    return verdicts + [
        (name, labels, metrics[key] * unit) for name, labels, key, unit in known if key in metrics
    ]


def registry(read: Callable[[], History]) -> CollectorRegistry:
    """A registry of these metrics only, without those of Python and of the process."""
    found = CollectorRegistry(auto_describe=False)
    found.register(NightCollector(read))
    return found


def serve(read: Callable[[], History], port: int, host: str = HOST) -> Callable[[], None]:
    """Serve http://host:port/metrics in a thread; return a function that stops it.

    Raises:
        TicklineError: the port is taken.
    """
    return serve_registry(registry(read), port, host, option="--port")


def serve_registry(
    found: CollectorRegistry, port: int, host: str, *, option: str
) -> Callable[[], None]:
    """Serve a registry as `serve` does; `option` names the port to the user."""
    try:
        server, thread = start_http_server(port, addr=host, registry=found)
    except OSError as error:
        raise TicklineError(
            f"cannot serve metrics: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy=f"choose another {option}",
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def write(history: History, path: Path) -> None:
    """Write the textfile that node_exporter's textfile collector reads, atomically.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(generate_latest(registry(lambda: history)))


def push(history: History, url: str) -> None:
    """Replace the job's metrics on a Prometheus push gateway.

    Raises:
        PushError: it does not respond, or refuses them.
    """
    try:
        push_to_gateway(url, job=JOB, registry=registry(lambda: history), timeout=10)
    except OSError as error:
        raise PushError(
            f"the push gateway does not accept the metrics: {error}",
            where=str(httpx.URL(url).copy_with(userinfo=b"")),
            remedy="check its address, e.g. http://127.0.0.1:9091",
        ) from error
