"""Planted drift in recorded ticks: one event. No drift: none."""

import dataclasses
import datetime as dt
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from msgspec.structs import replace

from infra.live.feedback.drift_event import read
from infra.live.feedback.log_files import read as read_log
from infra.live.feedback.spec import LogSpec
from infra.live.feedback.worker import Report, Setup, Worker, run
from model_code.features.batch import compute
from model_code.live.feedback.figures import Figures
from model_code.live.feedback.frames import Frame, Sampled, pack, unpack
from model_code.live.feedback.judge import Judgement
from model_code.live.feedback.spec import FeedbackSpec
from model_code.live.recorded import PlayedDay, played
from model_code.market.store import open_market
from model_code.settings import FEATURE_COUNT, MODEL_NAME, FeatureSpec, Settings
from tests.support.feedback import by_date, frames, reference
from tests.support.market import DATES, hive

SPEC = FeatureSpec(feature_set="solo")
JUDGE = FeedbackSpec(
    window_s=15.0, every_s=5.0, minimum=100, minimum_events=10, auc_goal=0.0, sustained=2
)
SHIFT_F = np.where(np.arange(FEATURE_COUNT) == 6, 1000.0, 0.0).astype(np.float32)


@pytest.fixture
def days(tmp_path: Path) -> list[PlayedDay]:
    store = open_market(hive(tmp_path / "store", n=3000, dates=DATES[:1]))
    return [played(store, one)[0] for one in store.catalog()]


@pytest.fixture
def settings(tmp_path: Path, days: list[PlayedDay]) -> Settings:
    """A home whose version 7 was trained on the days."""
    made = Settings(home=tmp_path / "home", prefect_api_url="http://127.0.0.1:9/api").resolved()
    folder = made.staging_repository / MODEL_NAME / "7"
    folder.mkdir(parents=True)
    rows = [compute(one.ticks, SPEC) for one in days]
    reference(
        np.concatenate([one.features_NF[63:] for one in rows]),
        np.concatenate([one.timestamp_N[63:] for one in rows]),
        SPEC,
        (15,),
    ).save(folder)
    return made


def served(settings: Settings, folder: Path, stream: list[Frame], **changes: Any) -> Report:
    """The last report after these frames."""
    spec = LogSpec(**({"judge": JUDGE} | changes))
    worker = Worker(Setup(spec.model_dump_json(), "desk", str(folder)), settings)
    source, sink = io.BytesIO(b"".join(map(pack, stream))), io.BytesIO()
    lines: list[str] = []
    run(source, sink, worker)
    body, found = sink.getvalue(), None
    while body:
        size = int.from_bytes(body[:4], "big")
        found = unpack(Report, body[4 : 4 + size])
        lines += found.lines
        body = body[4 + size :]
    assert found is not None
    return Report(found.counts, found.figures, found.streaks, lines)


def test_planted_drift_is_one_event_though_services_restart(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    stream = list(frames(days, shift_F=SHIFT_F))
    found = served(settings, tmp_path / "feedback", stream)
    assert found.counts["events"] == 1
    assert sum("sustained breach of version 7" in line for line in found.lines) == 1
    assert any("Prefect does not answer; will try again" in line for line in found.lines)
    (claim,) = (tmp_path / "feedback" / "drift").glob("*.json")
    record = read(claim)
    assert record.group == "desk"
    assert record.figures.breaches[0].startswith("PSI of mid_move")
    assert dt.date.fromisoformat(claim.stem) == dt.datetime.fromisoformat(record.at).date()
    again = served(settings, tmp_path / "feedback", stream)
    assert again.streaks[7] >= JUDGE.sustained
    assert again.counts["events"] == 0


def test_without_drift_there_is_no_event(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    found = served(settings, tmp_path / "feedback", list(frames(days)))
    assert found.figures[7].judged
    assert found.counts["events"] == 0
    assert not (tmp_path / "feedback" / "drift").exists()


def test_a_version_without_a_reference_is_logged_but_not_judged(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    (settings.staging_repository / MODEL_NAME / "7" / "reference.json").unlink()
    (frame,) = frames(days, rows=10**6, logged=True)
    found = served(settings, tmp_path / "feedback", [frame])
    assert "version 7 is logged but not judged" in found.lines[0]
    assert found.figures == {}
    assert found.counts["unlabelled"] == found.counts["logged"] == len(frame.sampled)


def test_a_cut_off_frame_ends_the_process_and_keeps_the_rest(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    first, second, *_ = frames(days, rows=300, logged=True)
    worker = Worker(
        Setup(LogSpec(judge=JUDGE).model_dump_json(), "desk", str(tmp_path / "feedback")), settings
    )
    run(io.BytesIO(pack(first) + pack(second)[:-9]), io.BytesIO(), worker)
    found = list(read_log(tmp_path / "feedback" / "log"))
    assert {one.sampled.key for one in found} == {one.key for one in first.sampled}
    wanted = {one.key: one.features for one in first.sampled}
    assert all(one.sampled.features == wanted[one.sampled.key] for one in found)


def test_after_a_gap_labels_begin_anew(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    first, second, third, *_ = frames(days, rows=300)
    lost = [first, Frame(third.rows, third.sampled, gap=True)]
    found = served(settings, tmp_path / "feedback", lost)
    assert found.counts["gaps"] == 1
    assert found.counts["labelled"] + found.counts["unlabelled"] == len(first.sampled) + len(
        third.sampled
    )
    assert second.sampled


def test_rows_that_come_again_end_no_process(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    first, second, *_ = frames(days, rows=300)
    found = served(settings, tmp_path / "feedback", [first, second, first, second])
    assert any("labels begin anew: the clock goes back" in line for line in found.lines)
    assert found.counts["gaps"] >= 1
    assert found.counts["labelled"] > len(first.sampled)


def test_a_claim_that_cannot_be_written_ends_no_process(tmp_path: Path) -> None:
    (tmp_path / "drift").write_text("no folder")
    setup = Setup(LogSpec(judge=JUDGE).model_dump_json(), "desk", str(tmp_path))
    worker = Worker(setup, Settings(home=tmp_path / "home").resolved())
    found = Figures(version=7, from_ns=0, until_ns=1, decisions=1, unlabelled=0)
    assert not worker._claim(Judgement(found, 2, sustained=True), dt.datetime.now(dt.UTC))
    assert "the sustained breach was not written down" in worker.report().lines[0]
    worker.close()


def test_figures_end_two_windows_after_the_last_decision_of_a_version(
    settings: Settings, days: list[PlayedDay], tmp_path: Path
) -> None:
    versions = settings.staging_repository / MODEL_NAME
    shutil.copytree(versions / "7", versions / "6")
    stream = list(frames(days))
    stamps = [one.decision.local_ns for frame in stream for one in frame.sampled]
    swap_ns = min(stamps) + 20 * 10**9
    assert max(stamps) > swap_ns + 2e9 * JUDGE.window_s

    def before_the_swap(one: Sampled) -> Sampled:
        if one.decision.local_ns >= swap_ns:
            return one
        return replace(one, decision=replace(one.decision, model_version=6))

    stream = [replace(one, sampled=[*map(before_the_swap, one.sampled)]) for one in stream]
    early = [one for one in stream if all(s.decision.local_ns < swap_ns for s in one.sampled)]
    assert set(served(settings, tmp_path / "a", early).figures) == {6}
    found = served(settings, tmp_path / "b", stream)
    assert set(found.figures) == set(found.streaks) == {7}
    assert found.counts["labelled"] + found.counts["unlabelled"] == len(stamps)


# eleven minutes of recorded ticks hold ten windows of a minute
MINUTE = FeedbackSpec(window_s=60.0, every_s=30.0, auc_goal=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1.0, 1e3], ids=["as recorded", "bid sizes in another unit"])
def test_on_reference_ticks_only_a_planted_shift_is_an_event(
    binance: str, tmp_path: Path, times: float
) -> None:
    """Each date is judged by its own reference; a shift is planted in the last one."""
    settings = Settings(home=tmp_path / "home", prefect_api_url="http://127.0.0.1:9/api").resolved()
    version = settings.staging_repository / MODEL_NAME / "7"
    version.mkdir(parents=True)
    folder, events, windows = tmp_path / "feedback", 0, 0
    dates = list(by_date(open_market(binance)))
    for place, (days, bounds) in enumerate(dates, 1):
        rows = [compute(one.ticks, SPEC) for one in days]
        reference(
            np.concatenate([one.features_NF[63:] for one in rows]),
            np.concatenate([one.timestamp_N[63:] for one in rows]),
            SPEC,
            (60,),
        ).save(version)
        planted = days if place < len(dates) else [larger(one, times) for one in days]
        stream = frames(planted, rows=1000, bounds=bounds, rate=0.2)
        found = served(settings, folder, list(stream), judge=MINUTE)
        figures = found.figures[7]
        assert figures.judged
        assert figures.unlabelled < 0.01 * figures.decisions
        assert bool(figures.breaches) == (planted is not days and times > 1)
        events += found.counts["events"]
        windows += 1
    assert windows == 2
    claims = list((folder / "drift").glob("*.json"))
    assert len(claims) == events == (0 if times == 1 else 1)
    if claims:
        assert any("bid_size" in text for text in read(claims[0]).figures.breaches)


def larger(day: PlayedDay, times: float) -> PlayedDay:
    """The day with bid sizes so many times as large."""
    place = day.quotes.column_names.index("bid_size")
    sizes = pc.multiply(day.quotes["bid_size"], times)
    return dataclasses.replace(day, quotes=day.quotes.set_column(place, "bid_size", sizes))
