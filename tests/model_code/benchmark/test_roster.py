"""One engine that fails leaves the roster with its reason."""

import numpy as np
import pytest

from model_code.benchmark import timing
from model_code.benchmark.roster import LONGEST, Roster, failure
from model_code.errors import EngineError
from model_code.settings import BenchmarkSpec
from tests.support.engines import Answers, Fails

SPEC = BenchmarkSpec(
    warmup=1, requests=6, rounds=3, batches=(1, 8), throughput_rounds=1,
    open_loop_hz=1000, open_loop_requests=3,
)  # fmt: skip
SINGLES = [np.zeros((1, 64, 16), np.float32)]
BATCHES = {1: SINGLES[0], 8: np.zeros((8, 64, 16), np.float32)}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EngineError("the graph is refused", where="x"), "failed: load: the graph is refused"),
        (
            RuntimeError("CUDA out of memory\nat 0x1"),
            "failed: load: RuntimeError: CUDA out of memory",
        ),
        (MemoryError(), "failed: load: MemoryError"),
    ],
)
def test_a_reason_is_one_line(error: Exception, text: str) -> None:
    assert failure("load", error) == text
    assert len(failure("load", RuntimeError("x" * 9999))) == LONGEST


def test_the_reference_and_a_strict_roster_let_every_exception_pass() -> None:
    roster = Roster({"torch-fp32": Answers(), "a": Answers()})
    with pytest.raises(ZeroDivisionError), roster.attempt("torch-fp32", "load"):
        raise ZeroDivisionError
    with roster.attempt("a", "load"):
        raise ZeroDivisionError
    assert (list(roster), len(roster)) == (["torch-fp32"], 1)
    assert roster.failed == {"a": "failed: load: ZeroDivisionError"}
    strict = Roster.of({"a": Answers()})
    with pytest.raises(ZeroDivisionError), strict.attempt("a", "load"):
        raise ZeroDivisionError
    assert Roster.of(roster) is roster


@pytest.mark.parametrize("after", range(1 + 2 + 15 + 4 + 6))
def test_an_engine_that_fails_at_any_call_costs_the_others_nothing(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm-up, three rounds, batches and the open loop: every call of the measurement."""
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    roster = Roster({"torch-fp32": Answers(), "a": Fails(after), "b": Answers()})
    found = timing.take_turns(roster, SINGLES, BATCHES, SPEC, lambda *_: None)
    assert list(roster.failed) == ["a"]
    assert roster.failed["a"].endswith(f"RuntimeError: call {after} failed")
    for figures in (found.latency_ms_R, found.throughput, found.open_ms_R):
        assert {"torch-fp32", "b"} <= figures.keys()
    assert len(found.latency_ms_R["b"]) == SPEC.requests
    assert "a" not in found.latency_ms_R
