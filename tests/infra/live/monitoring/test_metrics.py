"""What Prometheus scrapes."""

import math

import httpx
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infra.live.monitoring.metrics import METRICS, registry, samples, serve
from infra.live.monitoring.observer import HANDOVER, STAGES, TRANSPORT
from infra.live.monitoring.view import View
from infra.servers import HOST, free_port
from model_code.errors import TicklineError
from model_code.live.feedback.figures import Figures
from model_code.live.histogram import BOUNDS_MS
from model_code.live.reasons import Reason
from model_code.repository.targets import TargetStates
from tests.support.market import SYMBOLS
from tests.support.observed import Desk, busy, route

Found = dict[str, dict[tuple[tuple[str, str], ...], float]]


def read(text: str) -> Found:
    found: Found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("tickline_live_"), {})[labels] = sample.value
    return found


def scraped(view: View) -> Found:
    return read(generate_latest(registry(view)).decode())


def test_every_metric_has_a_value_and_its_labels() -> None:
    desk = busy()
    figures = Figures(version=8, from_ns=0, until_ns=1, decisions=9, unlabelled=0, auc=0.7)
    desk.observer.feedback = lambda: {8: figures}
    states = TargetStates(version=7, level=("east",), behind={"west": "no answer"})
    view = desk.view(route=route, targets=lambda: states)
    assert [one for one in samples(view) if one[0] == "target_behind"] == [
        ("target_behind", ("east",), 0.0),
        ("target_behind", ("west",), 1.0),
    ]
    assert ("feedback", ("8", "auc"), 0.7) in list(samples(view))
    for name, labels, _ in samples(view):
        assert len(labels) == len(METRICS[name].labels), name
    assert {name for name, _, _ in samples(view)} == set(METRICS)


def test_the_values_of_a_busy_service() -> None:
    found = scraped(busy().view(route=route))
    assert found["taken_total"] == {(): 129}
    assert found["messages_total"][("column", "decided"),] == 3
    assert found["suppressed_total"][("reason", "warming"),] == 126
    assert found["dead_letters_total"][("reason", "crossed_quote"),] == 0
    counted = {
        key[0][1] for name in ("suppressed", "dead_letters") for key in found[f"{name}_total"]
    }
    assert counted == set(Reason)
    yes = (("decision", "true"), ("symbol", SYMBOLS[0]), ("version", "7"))
    assert found["decisions_total"][yes] == 1
    assert sum(found["decisions_total"].values()) == 3
    assert found["flagged_decisions_total"] == {(("flag", "fallback"),): 1}
    assert found["lag_messages"] == {(("partition", "0"), ("topic", "ticks")): 5}
    assert (found["answering_version"], found["approved_version"]) == ({(): 8}, {(): 7})
    assert found["part_up"] == {(("part", "broker"),): 1}
    assert set(found["symbol_decision_timestamp_seconds"]) == {
        (("symbol", symbol),) for symbol in SYMBOLS
    }


def test_histograms_have_cumulative_buckets_around_the_limit() -> None:
    found = scraped(busy().view())
    buckets = {
        float(dict(labels)["le"]): value
        for labels, value in found["tick_to_decision_seconds_bucket"].items()
    }
    assert sorted(buckets) == [*(bound / 1e3 for bound in BOUNDS_MS), math.inf]
    assert (buckets[0.0015], buckets[0.002], buckets[0.01], buckets[math.inf]) == (0, 3, 3, 3)
    assert found["tick_to_decision_seconds_count"] == {(): 3}
    assert found["tick_to_decision_seconds_sum"][()] == pytest.approx(0.006)
    stages = {dict(labels)["stage"] for labels in found["stage_seconds_count"]}
    assert stages == {TRANSPORT, HANDOVER, *STAGES}


def test_unknown_values_are_absent_not_zero() -> None:
    found = scraped(Desk().view())
    for name in (
        "taken_total", "lag_messages", "tick_timestamp_seconds", "decision_timestamp_seconds",
        "answering_version", "approved_version", "part_up", "decisions_total",
    ):  # fmt: skip
        assert name not in found
    assert found["start_timestamp_seconds"]


def test_scrapes_are_served_on_loopback_until_stopped() -> None:
    port = free_port()
    stop = serve(busy().view(), port)
    try:
        answer = httpx.get(f"http://{HOST}:{port}/metrics")
        assert "tickline_live_taken_total 129.0" in answer.text
        with pytest.raises(TicklineError, match="cannot serve metrics") as error:
            serve(busy().view(), port)
        assert "--metrics" in error.value.remedy
    finally:
        stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{port}/metrics")


def test_targets_that_cannot_be_read_are_absent() -> None:
    def fails() -> TargetStates:
        raise PermissionError("targets.json")

    assert "target_behind" not in scraped(busy().view(targets=fails))
    assert "target_behind" not in scraped(busy().view())  # one server: there is no record
