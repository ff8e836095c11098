"""What a night's reports say of attributions and of days that other days contradict."""

from pathlib import Path
from typing import Any

import pytest

from model_code.artifacts import ArtifactStore
from model_code.market.schema import InstrumentDay
from model_code.settings import ValidationSpec
from tasks.monitoring.report import day_report, publish_attributions
from tasks.nightly.records import Attributed, ValidatedDay
from tasks.validation.day import validate_day
from tests.support.market import DATES, SYMBOLS, ticks

RUN: Any = object()  # nothing is logged


@pytest.mark.parametrize(
    ("attributed", "text"),
    [
        (None, ""),
        (
            Attributed(failure="the graph is refused"),
            "What the model looks at: not computed (the graph is refused)\n\n",
        ),
    ],
)
def test_attributions_that_are_off_say_nothing_and_failed_ones_say_why(
    attributed: Attributed | None, text: str
) -> None:
    assert publish_attributions(RUN, attributed, None) == text


def test_a_day_that_other_days_contradict_is_failed_in_its_report(tmp_path: Path) -> None:
    found = validate_day(ticks(1500), InstrumentDay(DATES[0], SYMBOLS[0]), ValidationSpec()).report
    assert found.passed
    (file := tmp_path / "day.json").write_text(found.model_dump_json())
    store = ArtifactStore(tmp_path / "store")
    judged: dict[str, Any] = {
        "report": store.put(file),
        "failures": ("truncated: 10 rows",),
        "remedies": ("fetch it again",),
    }
    report = day_report(store, ValidatedDay.model_construct(**judged))
    assert (report.passed, report.failures) == (False, ("truncated: 10 rows",))
    assert report.remedies == ("fetch it again",)
    assert report.rows == found.rows
