import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.errors import DataError
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import NightlySpec, Settings, ValidationSpec
from tasks.caching.stage import RunRef
from tasks.nightly.find_days import find_days
from tasks.nightly.records import SourceDay, ValidatedDay
from tasks.nightly.validate import day_notes, judge_coverage, require_passed, validate
from tests.support.market import DATES, equities, hive

MONDAY = dt.date(2024, 8, 5)
NOWHERE = ArtifactRef.of(name="x", sha256="0" * 64)


def day(place: int, rows: int = 1000, symbol: str = "A", **changes: Any) -> ValidatedDay:
    date = MONDAY + dt.timedelta(days=place)
    noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
    values: dict[str, Any] = {
        "date": date,
        "symbol": symbol,
        "rows": rows,
        "quarantined": 0,
        "repeated": 0,
        "profile": "crypto",
        "first": noon,
        "last": noon + dt.timedelta(hours=1),
        "trades": None,
        "notes": (),
        "faults": {},
        "failures": (),
        "remedies": (),
        "clean": NOWHERE,
        "quarantine": None,
        "report": NOWHERE,
    }
    return ValidatedDay(**(values | changes))


def test_a_truncated_day_fails_against_five_earlier_ones_with_one_remedy() -> None:
    days = (*(day(i) for i in range(5)), day(5, rows=300, last=None, repeated=100))
    judged = judge_coverage(days, ValidationSpec(), "24/7")
    assert [item.failures for item in judged[:5]] == [()] * 5
    assert judged[5].failures == (
        "truncated: 200 rows, 1,000 on other days, expected at least 25% of that",
    )
    assert len(judged[5].remedies) == 1


def test_a_short_sunday_of_an_fx_market_is_noted_and_does_not_fail() -> None:
    week = tuple(day(i, profile="fx") for i in range(5))
    judged = judge_coverage((*week, day(6, rows=10, profile="fx")), ValidationSpec(), "24/7")
    assert judged[5].failures == ()
    assert judged[5].notes[0].startswith("truncated: 10 rows")
    stocks = judge_coverage((*week, day(6, rows=10)), ValidationSpec(), "24/7")
    assert len(stocks[5].failures) == 1


def test_the_same_note_of_several_days_is_one_sentence() -> None:
    days = tuple(day(i, notes=("5 rows moved",)) for i in range(4))
    assert day_notes(days) == ("A 2024-08-05, A 2024-08-06 and 2 more: 5 rows moved",)


def test_many_failed_days_are_a_short_message_with_one_remedy_for_a_rule() -> None:
    days = tuple(day(i, failures=("minimum_rows: 1",), remedies=("fetch it",)) for i in range(8))
    with pytest.raises(DataError) as raised:
        require_passed(ArtifactStore(Path("/nowhere")), days)
    lines = raised.value.what.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 3 more days"
    assert raised.value.remedy == "fetch it"


def test_what_the_reader_left_out_is_in_the_notes_of_the_day(tmp_path: Path) -> None:
    store = open_market(equities(tmp_path / "ticks"))
    found = store.catalog()[0]
    source = SourceDay(
        market=store.uri,
        date=found.date,
        symbol=found.symbol,
        digest=store.digest(InstrumentDay(found.date, found.symbol)),
        simulated=False,
        profile=store.statement.profile,
    )
    settings = Settings(home=tmp_path / "home").resolved()
    run = RunRef(settings=settings, mlflow_run_id="m", flow_run_id="f")
    validated = validate.fn(run, source, ValidationSpec())
    assert validated.failures == ()
    assert validated.profile == "us-equities"
    notes = "\n".join(validated.notes)
    assert f"{validated.quarantined:,} rows quarantined (" in notes
    assert f"{validated.repeated:,} rows repeat the row above, left out" in notes
    assert "classified by Lee and Ready" in notes


def test_files_that_are_not_read_and_missing_instruments_are_warnings_of_the_plan(
    tmp_path: Path,
) -> None:
    uri = hive(tmp_path, 100)
    (tmp_path / "quotes" / "readme.txt").write_text("not ticks")
    (tmp_path / "quotes" / "symbol=AAA.test" / f"date={DATES[1]}.parquet").unlink()
    (tmp_path / "trades" / "symbol=AAA.test" / f"date={DATES[1]}.parquet").unlink()
    plan = find_days.fn(NightlySpec(market=uri))
    assert plan.warnings == (
        f"AAA.test has no ticks on {DATES[1]}: used for training only",
        "1 file passed over, not a .parquet file: quotes/readme.txt",
    )
    assert {found.profile for found in plan.days} == {None}
