"""The log beside a path: sampled, labelled, judged and written by a process of its own."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.live.feedback import prediction_log
from infra.live.feedback.prediction_log import PredictionLog
from infra.live.feedback.spec import LogSpec
from infra.servers import environment
from model_code.features.served import SOLO
from model_code.live.feedback.reference import LiveReference
from model_code.live.feedback.sampling import draw
from model_code.live.feedback.spec import FeedbackSpec
from model_code.live.messages import Decision
from model_code.live.path import LivePath
from model_code.live.recorded import Feed, played
from model_code.live.state import Group
from model_code.market.store import open_market
from model_code.models.probability import probability
from model_code.settings import MODEL_NAME, SEQUENCE_LENGTH, FeatureSpec, Settings
from tests.support.feedback import reference
from tests.support.live import StepPredictor
from tests.support.market import DATES, SYMBOLS, hive

N = 600
SPEC = FeatureSpec(feature_set="solo")


def trained() -> LiveReference:
    rows = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    return reference(rows, np.arange(500) * 10**9, SPEC)


def staged(settings: Settings) -> None:
    folder = settings.staging_repository / MODEL_NAME / "7"
    folder.mkdir(parents=True)
    trained().save(folder)


async def play(store: str, log: PredictionLog, *, pause_s: float = 0.0) -> list[Decision]:
    """A day through a path with the log; the decisions."""
    market = open_market(store)
    days = [played(market, one)[0] for one in market.catalog()]
    group = Group(SOLO, SYMBOLS, 10.0)
    path = LivePath(group, threshold=0.5, model_version=7, watch=log.watch)
    found: list[Decision] = []
    for tick in Feed().messages(days):
        path.take(tick, tick.local_ns)
        asked = path.ready(tick.local_ns)
        if asked is None:
            continue
        p_B = probability(StepPredictor().predict(asked.x_BTF))
        decisions = path.answer(asked, p_B, tick.local_ns)
        await log.write(decisions, [asked])
        found += decisions
        await asyncio.sleep(pause_s)
    return found


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=N, dates=DATES[:1])


def made(settings: Settings, spec: LogSpec, lines: list[str]) -> PredictionLog:
    folder = settings.home / "live" / "desk" / "feedback"
    return PredictionLog(spec, "desk", folder, environment(settings), lines.append)


def test_sampled_decisions_are_labelled_and_written(store: str, tmp_path: Path) -> None:
    settings, lines = Settings(home=tmp_path / "home").resolved(), list[str]()
    staged(settings)
    judge = FeedbackSpec(every_s=0.5, minimum=10, minimum_events=2, sustained=100)
    log = made(settings, LogSpec(rate=0.3, judge=judge), lines)

    async def run() -> list[Decision]:
        await log.start()
        found = await play(store, log)
        await log.close()
        return found

    decisions = asyncio.run(run())
    chosen = {
        (one.symbol, one.sequence): one
        for one in decisions
        if draw(one.symbol, one.session, one.sequence) < 0.3
    }
    rows = pq.read_table(tmp_path / "home" / "live" / "desk" / "feedback" / "log").to_pylist()
    assert {(row["symbol"], row["sequence"]) for row in rows} == set(chosen)
    assert len(rows) == len(chosen) == log.logged > 0.2 * len(decisions)
    assert {row["label"] for row in rows} >= {0, 1}
    for row in rows:
        one = chosen[row["symbol"], row["sequence"]]
        assert (row["probability"], row["local_ns"]) == (one.probability, one.local_ns)
        newest = np.array(row["window"], np.float32).reshape(SEQUENCE_LENGTH, -1)[-1, 6]
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-np.float64(newest))))
    counts = log.report.counts
    assert counts["labelled"] + counts["unlabelled"] == len(decisions) == log.sampled
    assert (counts["logged"], counts["log_dropped"], counts["gaps"]) == (len(rows), 0, 0)
    assert lines == []


def test_a_process_that_does_not_read_costs_samples_but_no_time(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lines = Settings(home=tmp_path / "home").resolved(), list[str]()
    staged(settings)
    monkeypatch.setattr(prediction_log, "BUFFER_BYTES", 10_000)
    monkeypatch.setattr(prediction_log, "EVERY_S", 0.0)
    log = made(settings, LogSpec(rate=1.0), lines)

    async def run() -> list[Decision]:
        await log.start()
        assert log._process is not None
        os.kill(log._process.pid, signal.SIGSTOP)
        found = await play(store, log)  # would hang if it waited
        os.kill(log._process.pid, signal.SIGCONT)
        await log.close()
        return found

    decisions = asyncio.run(run())
    assert log.dropped > 0
    counts = log.report.counts
    assert counts["labelled"] + counts["unlabelled"] + log.dropped == len(decisions)


def test_a_killed_process_is_started_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lines = Settings(home=tmp_path / "home").resolved(), list[str]()
    staged(settings)
    monkeypatch.setattr(prediction_log, "RESTART_S", 0.05)
    log = made(settings, LogSpec(rate=1.0), lines)

    async def run() -> None:
        await log.start()
        assert log._process is not None
        os.kill(log._process.pid, signal.SIGKILL)
        while log.restarts == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await play(store, log)
        await log.close()

    asyncio.run(run())
    assert "ended with -9; decisions continue" in lines[0]
    assert log.report.counts["logged"] > 0
    assert log.report.counts["gaps"] == 1
