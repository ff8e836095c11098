"""Outcomes of live requests: written by clients, read by a canary's judge."""

from pathlib import Path

import pytest

from model_code.errors import IntegrityError
from model_code.serving.observed import Tally
from model_code.serving.outcomes import Outcome, OutcomeReader, OutcomeWriter
from model_code.settings import PromotionSpec

SPEC = PromotionSpec(canary_patience=5, max_p50_ratio=2.0, max_disagreement=0.2)
FOUND = [Outcome("m", 2, 1.5, agrees=True), Outcome("m", 2, error="refused"), Outcome("n", 1, 2.0)]


def test_the_judge_reads_what_was_written_since_it_began(tmp_path: Path) -> None:
    writer = OutcomeWriter(tmp_path / "route.json")
    writer.flush()
    assert list(tmp_path.iterdir()) == []
    writer.add(Outcome("m", 2, error="of an earlier canary"))
    writer.flush()
    reader = OutcomeReader(tmp_path / "route.json")
    assert reader.read() == []
    for one in FOUND[:2]:
        writer.add(one)
    writer.flush()
    assert reader.read() == FOUND[:2]
    writer.add(FOUND[2])
    writer.flush()
    assert reader.read() == FOUND[2:]
    assert reader.read() == []


def test_a_line_that_is_not_complete_is_read_later(tmp_path: Path) -> None:
    folder = tmp_path / "outcomes"
    folder.mkdir()
    reader = OutcomeReader(tmp_path / "route.json")
    path = folder / "host-1.jsonl"
    path.write_text('{"model":"m","version":2,"ms":1.5}\n{"model":"m",')
    assert len(reader.read()) == 1
    with path.open("a") as file:
        file.write('"version":3,"ms":1.0}\n')
    assert [one.version for one in reader.read()] == [3]
    with path.open("a") as file:
        file.write('{"model":"m"}\n')
    with pytest.raises(IntegrityError, match="cannot be read") as error:
        reader.read()
    assert str(path) in error.value.where


def test_live_traffic_is_judged_by_the_same_goals_but_may_be_little() -> None:
    own, live = Tally(), Tally()
    for _ in range(10):
        own.answer(1.0, agrees=True)
    live.answer(100.0, agrees=False)
    assert own.observed(live.observed()).broken(SPEC, final=True) == []
    for _ in range(5):
        live.answer(1.0, agrees=None)
    seen = live.observed()
    assert (seen.disagreement, seen.compared) == (1.0, 1)
    assert seen.broken(SPEC) == ["p99 latency 95.05 ms > 50 ms"]  # one comparison is too few
    live.error("refused")
    assert own.observed(live.observed()).broken(SPEC) == [
        "live traffic: error rate 14.29% > 0.00%: 1 of 7 (refused)",
        "live traffic: p99 latency 95.05 ms > 50 ms",
    ]
