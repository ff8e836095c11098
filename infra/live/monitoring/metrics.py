"""A running service as Prometheus metrics, served on loopback.

Times are Unix time stamps and durations are in seconds. An unknown value is absent, never zero.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from infra.live.monitoring.observer import (
    HANDOVER,
    SERVICE,
    STAGES,
    TOTAL,
    TRANSPORT,
    Observer,
)
from infra.live.monitoring.view import View
from infra.metrics import serve_registry
from infra.servers import HOST
from model_code.live.histogram import Histogram
from model_code.live.reasons import Column, Reason, column

PREFIX = "tickline_live_"


class Kind(NamedTuple):
    """A metric: its family, help text and labels."""

    family: type[Metric]
    text: str
    labels: tuple[str, ...] = ()


_COUNTER, _GAUGE, _HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

# name without the prefix
METRICS: dict[str, Kind] = {
    "start_timestamp_seconds": Kind(_GAUGE, "Start of the service."),
    "messages_total": Kind(_COUNTER, "Messages by column of the ledger.", ("column",)),
    "taken_total": Kind(_COUNTER, "Messages taken: quotes, trades, unreadable ones."),
    "suppressed_total": Kind(_COUNTER, "Suppressed messages by reason.", ("reason",)),
    "dead_letters_total": Kind(_COUNTER, "Dead letters by reason.", ("reason",)),
    "lost_total": Kind(_COUNTER, "Sequence numbers that never came."),
    "reordered_total": Kind(_COUNTER, "Messages behind a later one."),
    "duplicated_total": Kind(_COUNTER, "Messages with a number seen before."),
    "decisions_total": Kind(
        _COUNTER, "Decisions by instrument, version and answer.", ("symbol", "version", "decision")
    ),
    "flagged_decisions_total": Kind(_COUNTER, "Decisions by flag, e.g. fallback.", ("flag",)),
    "recorded_decisions_total": Kind(
        _COUNTER, "Decisions on stamps over a minute off the clock: in no latency from the tick."
    ),
    "tick_to_decision_seconds": Kind(_HISTOGRAM, "From the tick's local stamp to its decision."),
    "service_seconds": Kind(_HISTOGRAM, "From the received bytes to the decision."),
    "stage_seconds": Kind(
        _HISTOGRAM, "Latency by stage; transport: from the local stamp until received.", ("stage",)
    ),
    "lag_messages": Kind(
        _GAUGE, "Messages in the broker, not received yet.", ("topic", "partition")
    ),
    "unprocessed_messages": Kind(_GAUGE, "Messages received, not processed yet."),
    "unconfirmed_outputs": Kind(_GAUGE, "Outputs that the broker has not confirmed."),
    "waiting_windows": Kind(_GAUGE, "Windows that wait for the model."),
    "queue_full_total": Kind(_COUNTER, "Outputs refused by the producer's full queue."),
    "pauses_total": Kind(_COUNTER, "Pauses because too many messages waited."),
    "sink_failures_total": Kind(_COUNTER, "Rounds that a sink did not take."),
    "tick_timestamp_seconds": Kind(_GAUGE, "When the newest message came."),
    "decision_timestamp_seconds": Kind(_GAUGE, "When the newest decision was made."),
    "symbol_decision_timestamp_seconds": Kind(
        _GAUGE, "When the instrument's newest decision was made.", ("symbol",)
    ),
    "answering_version": Kind(_GAUGE, "Version of the newest decision."),
    "approved_version": Kind(_GAUGE, "Version that the route names."),
    "feedback": Kind(
        _GAUGE, "Figures of the newest judged window: auc, psi_...", ("version", "figure")
    ),
    "part_up": Kind(_GAUGE, "1 if the service reaches it.", ("part",)),
    "target_behind": Kind(
        _GAUGE,
        "1 if the Triton server lacked the serving version after the last change.",
        ("target",),
    ),
}
Sample = tuple[str, tuple[str, ...], float | Histogram]


class LiveCollector(Collector):
    """Reads the observer at each scrape."""

    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """One family per metric; a family without a value is omitted."""
        families = {
            name: kind.family(PREFIX + name, kind.text, labels=kind.labels)  # type: ignore[call-arg]
            for name, kind in METRICS.items()
        }
        for name, labels, value in samples(self._view):
            if isinstance(value, Histogram):
                families[name].add_metric(labels, *_buckets(value))  # type: ignore[attr-defined]
            else:
                families[name].add_metric(labels, value)  # type: ignore[attr-defined]
        return [family for family in families.values() if family.samples]


def samples(view: View) -> Iterator[Sample]:
    """Every (metric, label values, value) of the service."""
    observer = view.observer
    yield "start_timestamp_seconds", (), observer.started_ns / 1e9
    for (symbol, version, decision), count in observer.answers.copy().items():
        yield "decisions_total", (symbol, str(version), str(decision).lower()), count
    for flag, count in observer.flags.copy().items():
        yield "flagged_decisions_total", (flag,), count
    yield "recorded_decisions_total", (), observer.far
    yield "tick_to_decision_seconds", (), observer.durations[TOTAL]
    yield "service_seconds", (), observer.durations[SERVICE]
    for stage in (TRANSPORT, HANDOVER, *STAGES):
        yield "stage_seconds", (stage,), observer.durations[stage]
    yield from _times(observer)
    yield from _status(observer)
    champion = view.route().champion
    if champion is not None:
        yield "approved_version", (), champion.version
    for version, figures in observer.feedback().items():
        for name, value in figures.numbers.items():
            yield "feedback", (str(version), name), value
    for part in view.parts():
        if part.state != "unknown":
            yield "part_up", (part.name,), float(part.state == "up")
    targets = view.targets()
    for name in (*targets.level, *targets.behind):
        yield "target_behind", (name,), float(name in targets.behind)


def _times(observer: Observer) -> Iterator[Sample]:
    if observer.tick_at_ns is not None:
        yield "tick_timestamp_seconds", (), observer.tick_at_ns / 1e9
    if observer.decision_at_ns is not None:
        yield "decision_timestamp_seconds", (), observer.decision_at_ns / 1e9
    newest = None
    for symbol, one in observer.instruments.copy().items():
        yield "symbol_decision_timestamp_seconds", (symbol,), one.at_ns / 1e9
        newest = max(newest or one, one, key=lambda found: found.at_ns)
    if newest is not None:
        yield "answering_version", (), newest.newest.model_version


def _status(observer: Observer) -> Iterator[Sample]:
    status = observer.status
    if status is None:
        return
    ledger = status.ledger
    yield "taken_total", (), ledger.taken
    for ended in Column:
        yield "messages_total", (ended,), ledger.columns[ended]
    for reason in Reason:
        suppressed = column(reason) is Column.SUPPRESSED
        name = "suppressed_total" if suppressed else "dead_letters_total"
        yield name, (reason,), ledger.reasons[reason]
    yield "lost_total", (), ledger.lost
    yield "reordered_total", (), ledger.reordered
    yield "duplicated_total", (), ledger.duplicated
    for partition, lag in status.lag.items():
        if lag >= 0:
            yield "lag_messages", (partition.topic, str(partition.number)), lag
    yield "unprocessed_messages", (), status.unprocessed
    yield "unconfirmed_outputs", (), status.unconfirmed
    yield "waiting_windows", (), status.waiting
    yield "queue_full_total", (), status.queue_full
    yield "pauses_total", (), status.pauses
    yield "sink_failures_total", (), status.sink_failures


def _buckets(one: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets = [
        ("+Inf" if math.isinf(ms) else str(ms / 1e3), float(count))
        for ms, count in one.cumulative()
    ]
    return buckets, one.total_ns / 1e9


def registry(view: View, beside: Sequence[Collector] = ()) -> CollectorRegistry:
    """A registry of these metrics and others, without those of Python and of the process."""
    found = CollectorRegistry(auto_describe=False)
    for collector in (LiveCollector(view), *beside):
        found.register(collector)
    return found


def serve(
    view: View, port: int, host: str = HOST, beside: Sequence[Collector] = ()
) -> Callable[[], None]:
    """Serve http://host:port/metrics in a thread; return a function that stops it.

    Raises:
        TicklineError: the port is taken.
    """
    return serve_registry(registry(view, beside), port, host, option="--metrics")
