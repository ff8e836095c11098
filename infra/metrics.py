"""The last nights as Prometheus metrics: served on loopback, as a textfile, or pushed.

Times are Unix time stamps, so that a textfile that is no longer written ages visibly; durations and
latencies are in seconds. What is unknown is absent, never zero.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, push_to_gateway, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from infra.servers import HOST
from model_code.artifacts import atomic_file
from model_code.errors import TicklineError
from model_code.monitoring.history import FINISHED, RUNNING, History, Night

JOB = "tickline"
VERDICTS = ("pass", "no baseline", "fail")
STATUSES = (RUNNING, FINISHED, "FAILED", "KILLED")

# name without the prefix `tickline_` -> what it says, its labels
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "source_up": ("1 if the store answered when last asked.", ("source",)),
    "nights": ("Nights among the last ones looked at, by MLflow status.", ("status",)),
    "nightly_status": ("1 for the status of the newest night.", ("status", "simulated")),
    "nightly_start_timestamp_seconds": ("When the newest night began.", ()),
    "nightly_success_timestamp_seconds": ("When the newest finished night ended.", ()),
    "nightly_duration_seconds": ("Length of the newest ended night.", ()),
    "nightly_stage_duration_seconds": (
        "Length of each stage of the newest night, its state beside it.",
        ("stage", "state"),
    ),
    "rows": ("Ticks that were validated in the newest night.", ()),
    "rows_quarantined": ("Ticks that failed validation in the newest night.", ()),
    "auc": ("Area under the ROC curve on the test day, newest judged night.", ("model",)),
    "accuracy": ("Share of right decisions on the test day, newest judged night.", ("model",)),
    "latency_seconds": ("Latency of the chosen engine at batch 1.", ("engine", "quantile")),
    "throughput_windows_per_second": ("Of the chosen engine, in batches.", ("engine",)),
    "verdict": ("1 for the gate's word in the newest judged night.", ("verdict",)),
    "champion_since_timestamp_seconds": ("Since when the champion serves.", ("version",)),
}


class PushError(TicklineError):
    """The push gateway does not take the metrics."""


class NightCollector(Collector):
    """Asks for the nights at each scrape.

    Args:
        look: reads MLflow and Prefect; called once a scrape.
    """

    def __init__(self, look: Callable[[], History]) -> None:
        self.look = look

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One gauge family a metric; a family without a value is left out."""
        families = {
            name: GaugeMetricFamily(f"tickline_{name}", text, labels=labels)
            for name, (text, labels) in METRICS.items()
        }
        for name, labels, value in samples(self.look()):
            families[name].add_metric(labels, value)
        return [family for family in families.values() if family.samples]


Sample = tuple[str, tuple[str, ...], float]


def samples(history: History) -> list[Sample]:
    """Every (metric, label values, value) that the nights give."""
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
    words: list[Sample] = [
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
    return words + [
        (name, labels, metrics[key] * unit) for name, labels, key, unit in known if key in metrics
    ]


def registry(look: Callable[[], History]) -> CollectorRegistry:
    """A registry of the nights alone, without Python's and the process's own metrics."""
    found = CollectorRegistry(auto_describe=False)
    found.register(NightCollector(look))
    return found


def serve(look: Callable[[], History], port: int, host: str = HOST) -> Callable[[], None]:
    """Answer scrapes at http://host:port/metrics in a thread; return what stops it.

    Raises:
        TicklineError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry(look))
    except OSError as error:
        raise TicklineError(
            f"cannot serve metrics: {error.strerror or error}",
            where=f"{host}:{port}",
            remedy="choose another --port",
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
        PushError: it does not answer, or refuses them.
    """
    try:
        push_to_gateway(url, job=JOB, registry=registry(lambda: history), timeout=10)
    except OSError as error:
        raise PushError(
            f"the push gateway does not take the metrics: {error}",
            where=str(httpx.URL(url).copy_with(userinfo=b"")),
            remedy="check its address, e.g. http://127.0.0.1:9091",
        ) from error
