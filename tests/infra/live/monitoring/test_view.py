"""The document: states, rates, percentiles, the ledger."""

from typing import Any

import pytest

from infra.live.monitoring.document import DECODER, ENCODER, Figure, Part
from infra.live.monitoring.view import View
from infra.live.status import Status
from model_code.errors import IntegrityError
from model_code.live.feedback.figures import Figures
from model_code.live.histogram import MS
from model_code.live.ledger import Ledger
from model_code.repository.route import Route, Target
from model_code.settings import MODEL_NAME
from tests.support.live import NOON
from tests.support.market import SYMBOLS
from tests.support.observed import Desk, busy, route


def judged(**changes: Any) -> Figures:
    values: dict[str, Any] = {"version": 8, "from_ns": 0, "decisions": 9, "unlabelled": 0}
    values |= {"psi": {"spread": 0.1, "imbalance": 0.3}}
    values |= {"limits": {"spread": 0.2, "imbalance": 0.2}}
    return Figures(**(values | changes))


def test_the_document_of_a_busy_service() -> None:
    desk = busy()
    found = desk.view(route=route).document()
    assert found.state == "live"
    assert found.recorded is False
    assert found.at_ms == desk.now_ns // MS
    assert (found.decisions_per_s, found.ticks_per_s) == (3.0, 3.0)
    assert (found.lag, found.unprocessed, found.unconfirmed) == (5, 3, 2)
    assert found.versions == {"7": 2, "8": 1}
    assert (found.flags, found.recent) == ({"fallback": 1}, 3)
    assert (found.champion, found.candidate, found.share) == (7, None, 0.0)
    ledger = found.ledger
    assert ledger.taken == sum(ledger.columns.values()) + ledger.waiting == 129
    assert ledger.columns["decided"] == 3
    assert ledger.reasons == {"warming": 126}
    assert [one.symbol for one in found.instruments] == sorted(SYMBOLS)
    assert found.opportunities[0].probability == 0.75
    assert found.parts == [Part(name="broker", state="up")]
    stages = {one.name: one for one in found.stages}
    assert {one.count for one in found.stages} == {3}
    assert stages["tick to decision"].p50 == pytest.approx(2.0, rel=0.06)
    assert stages["tick to decision"].p99 is not None


def test_what_is_sent_can_be_read_again() -> None:
    desk = busy()
    desk.observer.feedback = lambda: {7: judged(until_ns=1), 8: judged(until_ns=2, auc=0.75)}
    document = desk.view().document()
    assert document.drift == [
        Figure(name="AUC", value=0.75),
        Figure(name="PSI imbalance", value=0.3, limit=0.2, breached=True),
        Figure(name="PSI spread", value=0.1, limit=0.2),
    ]
    assert DECODER.decode(ENCODER.encode(document)) == document


def test_an_event_has_the_points_since_the_one_before() -> None:
    desk = busy()
    points = {one.symbol: one.points for one in desk.view().document(NOON // MS + 1250).instruments}
    assert points[SYMBOLS[0]] == []
    assert [point.at_ms for point in points[SYMBOLS[1]]] == [NOON // MS + 1250]


def test_the_states_of_a_stream() -> None:
    desk = Desk(SYMBOLS[:1])
    view = desk.view()
    assert view.document().state == "starting"
    desk.observer.update(Status(), 0.0)
    assert view.document().state == "no ticks yet"
    assert view.document().decision_age_s is None
    desk.update(1.0)
    assert view.document().state == "warming up"
    desk.decide(0.4)
    desk.update(2.0)
    assert view.document().state == "live"
    desk.wait(6_000)
    assert view.document().state == "interrupted"
    desk.path.ledger.taken += 1
    desk.update(3.0)
    assert view.document().state == "no decisions"
    assert view.document().decision_age_s == 6.0


def test_percentiles_cover_the_last_minute_only() -> None:
    desk = busy()
    for second in range(1, 80):
        desk.update(float(second))
    found = desk.view().document()
    assert {one.count for one in found.stages} == {0}
    assert {one.p99 for one in found.stages} == {None}
    assert (found.versions, found.flags, found.recent) == ({}, {}, 0)
    assert found.instruments[0].decisions > 0


def test_a_canary_and_a_route_that_cannot_be_read() -> None:
    candidate = Target(model=MODEL_NAME, version=9)
    both = Route(champion=Target(model=MODEL_NAME, version=7), candidate=candidate, share=0.1)
    found = busy().view(route=lambda: both).document()
    assert (found.champion, found.candidate, found.share) == (7, 9, 0.1)

    def broken() -> Route:
        raise IntegrityError("the route file is malformed")

    assert busy().view(route=broken).document().champion is None


@pytest.mark.parametrize(
    ("error", "state"), [(None, "unknown"), ("", "up"), ("no broker can be reached", "down")]
)
def test_the_broker_is_one_of_the_parts(error: str | None, state: str) -> None:
    desk = Desk()
    desk.observer.update(Status(ledger=Ledger(), broker_error=error), 0.0)
    redis = Part(name="Redis", state="down", detail="refused")
    desk.observer.parts.append(lambda: redis)
    found = View(desk.observer).document().parts
    assert [(one.name, one.state, one.detail) for one in found] == [
        ("broker", state, error or ""),
        ("Redis", "down", "refused"),
    ]


def test_an_unknown_lag_is_not_zero() -> None:
    desk = Desk()
    desk.update(0.0, lag={})
    assert desk.view().document().lag is None
