"""Triton and Redis as parts of the document."""

from types import SimpleNamespace
from typing import Any

import pytest

from infra.live.monitoring.document import Part
from infra.live.monitoring.parts import redis_part, triton_part
from infra.servers import ServerError


@pytest.mark.parametrize(("away", "state"), [(False, "up"), (True, "down")])
def test_triton(away: bool, state: str) -> None:
    model: Any = SimpleNamespace(away=away, state="requests: answered 3")
    assert triton_part(model)() == Part(name="Triton", state=state, detail="requests: answered 3")  # type: ignore[arg-type]


def test_redis_says_why_it_cannot_be_used() -> None:
    state: Any = SimpleNamespace(error=None, address="127.0.0.1:6379")
    read = redis_part(state)
    assert read() == Part(name="Redis", state="up", detail="127.0.0.1:6379")
    state.error = ServerError("Redis does not respond")
    assert read().state == "down"
    assert read().detail == "Redis does not respond (127.0.0.1:6379)"
