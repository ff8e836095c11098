import re
from html.parser import HTMLParser

import pytest

from model_code.market.quality import DayReport
from model_code.market.schema import InstrumentDay
from model_code.settings import ValidationSpec
from tasks.validation.day import validate_day
from tasks.validation.report import render
from tests.support.faults import put
from tests.support.market import DATES, SYMBOLS, ticks


@pytest.fixture(scope="module")
def days() -> tuple[DayReport, ...]:
    good = ticks(1500)
    bad = put(ticks(1500), "label", list(range(0, 100, 2)), 2)
    hostile = InstrumentDay(DATES[0], "<script>alert(1)</script>")
    return tuple(
        validate_day(table, day, ValidationSpec()).report
        for table, day in (
            (good, InstrumentDay(DATES[0], SYMBOLS[0])),
            (bad, InstrumentDay(DATES[0], SYMBOLS[0])),
            (ticks(1200, symbol=hostile.symbol), hostile),
        )
    )


class Balance(HTMLParser):
    """Counts tags and checks that every opened tag is closed, in order."""

    VOID = frozenset({"meta", "line", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def test_page_is_complete_and_self_contained(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="file:///data", simulated=False)
    parser = Balance()
    parser.feed(page)
    assert parser.stack == []
    assert parser.counts["section"] == 1 + len(days)
    assert parser.counts["svg"] == len(days)
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not {"script", "link", "img", "iframe"} & set(parser.counts)
    assert "@import" not in page
    assert "url(" not in page


def test_page_shows_counts_reasons_and_remedies(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="file:///data", simulated=False)
    assert "2 of 3</b>" in page
    assert page.count('class="badge quarantined"') == 1
    assert "fault_fraction: 50 of 1,500 rows (3.33%) at fault: bad_label 50" in page
    assert "What to do: bad_label: export the label as 0 or 1" in page
    assert "20 of 50" in page
    for item in days[0].expectations:
        assert page.count(f"<td><code>{item.name}</code></td>") == len(days)


def test_data_in_the_page_is_escaped(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="<b>here</b>", simulated=False)
    assert "<script>" not in page
    assert "&lt;b&gt;here" in page


def test_simulated_data_is_labelled(days: tuple[DayReport, ...]) -> None:
    assert "not real market data" in render(days, source="simulated:", simulated=True)
    assert "not real market data" not in render(days, source="file:///x", simulated=False)


def test_page_without_days_is_rendered() -> None:
    assert "0 of 0</b>" in render((), source="file:///data", simulated=False)
