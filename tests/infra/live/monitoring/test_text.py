"""The document as text."""

import msgspec

from infra.live.monitoring import text
from infra.live.monitoring.document import Document, Part
from infra.live.status import Status
from tests.support.market import SYMBOLS
from tests.support.observed import Desk, busy, route


def document(**changes: object) -> Document:
    return msgspec.structs.replace(busy().view(route=route).document(), **changes)


def test_the_whole_as_text() -> None:
    found = text.plain(document()).splitlines()
    assert found[0] == "state: live, version 7, 8, up 0 min"
    assert found[1] == "rates: ticks 3/s, decisions 3/s, newest 0.0 s ago, lag 5"
    assert found[2] == "connections: broker up"
    assert found[3] == "no decision: warming 126"
    first, second = (next(line for line in found if line.startswith(name)) for name in SYMBOLS)
    assert first.split() == [SYMBOLS[0], "100.04", "0.750", "0.500", "yes", "2", "50.0%"]
    assert second.split()[2:] == ["0.125", "0.250", "no", "1", "0.0%"]
    assert ["decided", "3"] in [line.split() for line in found]
    assert any(line.startswith("tick to decision") for line in found)
    assert max(map(len, found)) <= 80


def test_without_a_tick_it_says_what_to_do() -> None:
    desk = Desk()
    desk.observer.update(Status(), 0.0)
    found = text.plain(desk.view().document())
    assert "No ticks yet. To play recorded days: tickline feed --data PATH" in found
    assert "newest never, lag unknown" in found
    assert "no decision: none" in found


def test_a_canary_and_a_part_that_is_down() -> None:
    down = Part(name="Redis", state="down", detail="refused")
    one = document(candidate=9, share=0.1, parts=[down])
    assert text.headline(one).startswith("live, version 7, 8, canary 9 gets 10%")
    assert text.part_line(one) == "Redis down (refused)"


def test_every_state_has_a_note() -> None:
    assert set(text.NOTES) == set(Document.__annotations__["state"].__args__)


def test_ages() -> None:
    found = [text.age(seconds) for seconds in (None, 0.25, 119.0, 7300.0)]
    assert found == ["never", "0.2 s ago", "1 min ago", "2.0 h ago"]
