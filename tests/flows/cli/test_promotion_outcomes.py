"""What the promotion commands print, from the records of real outcomes."""

import datetime as dt
import re
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.cli.promotion import say_outcome
from model_code.comparison.observed import Observed
from model_code.settings import PromotionSpec
from tasks.promotion.records import Compared, Decided, Loaded, Promoted, Validated

AT = dt.datetime(2024, 8, 10, 9, tzinfo=dt.UTC)
SEEN = Observed(
    requests=400, errors=1, disagreements=20, candidate_p50_ms=0.61, candidate_p99_ms=1.4,
    champion_p50_ms=0.72, champion_p99_ms=1.6,
)  # fmt: skip


def said(outcome: Promoted | FlowRun, capsys: pytest.CaptureFixture[str]) -> str:
    say_outcome(outcome)
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_promoted_version_is_told_with_what_it_showed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    load = Loaded(concurrency=8, p50_ms=1.25, p99_ms=3.5, throughput=5120.0, failed=0)
    outcome = Promoted(
        version=7, outcome="promoted", champion=7, previous=6,
        decided=Decided(verdict="approve", reviewer="ada", reason="sound", at=AT),
        validated=Validated(replayed=512, largest=1e-6, loads=(load,)),
        shadow=Compared(skipped="no serving model yet"),
        canary=Compared.judged([SEEN], PromotionSpec(max_error_rate=0.01)),
    )  # fmt: skip
    text = said(outcome, capsys)
    assert "512 recorded requests answered as in the benchmark, probabilities within 1e-06" in text
    assert "8 1.25 3.50 5,120" in text
    assert "shadow: no serving model yet" in text
    assert "canary: 400 requests, 1 failed, 5.0% of 399 decisions differ" in text
    assert "p50 0.61 ms (champion 0.72 ms)" in text
    assert "error rate 1/400 0.0% to " in text
    assert "shown met" in text
    assert "version 7 is serving; a rollback goes to: version 6" in text


def test_a_first_version_has_nothing_to_roll_back_to(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(Promoted(version=1, outcome="already serving", champion=1), capsys)
    assert "version 1 is already serving; a rollback goes to: none" in text


@pytest.mark.parametrize(
    ("reviewer", "text"), [("ada", "version 7 rejected by ada: no"), ("", "version 7 rejected: no")]
)
def test_a_rejection_names_its_reviewer_if_there_is_one(
    reviewer: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = Decided(verdict="reject", reviewer=reviewer, reason="no", at=AT)
    assert text in said(Promoted(version=7, outcome="rejected", decided=decided), capsys)


def test_a_waiting_promotion_names_the_next_commands(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = FlowRun(flow_id=uuid4(), name="calm-otter", parameters={"version": 7})
    text = said(waiting, capsys)
    assert "version 7 waits for a decision (run calm-otter)" in text
    assert "tickline approve 7 --reviewer NAME --reason TEXT" in text
    assert "tickline reject 7" in text
