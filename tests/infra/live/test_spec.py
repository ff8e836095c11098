"""Specification of the service."""

import pytest
from pydantic import ValidationError

from infra.live.spec import TritonSpec


def test_a_hedge_leaves_the_second_server_time() -> None:
    with pytest.raises(ValidationError, match="hedge_after_ms is 11, at most half of deadline_ms"):
        TritonSpec(hedge_to="second:8001", hedge_after_ms=11.0)
    assert TritonSpec(hedge_to="second:8001", hedge_after_ms=10.0).hedge_after_ms == 10.0
    assert TritonSpec(hedge_after_ms=11.0).hedge_to is None
