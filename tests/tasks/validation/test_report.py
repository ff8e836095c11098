import datetime as dt
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

    VOID = frozenset({"meta", "link", "line", "rect"})

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
    assert parser.counts["section"] == 2 + len(days)
    assert parser.counts["svg"] == len(days)
    assert not re.search(r"(src|href)=\"(?!#|data:,)", page)
    assert not {"script", "img", "iframe"} & set(parser.counts)
    assert "@import" not in page
    assert "url(" not in page


def test_page_shows_counts_reasons_and_remedies(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="file:///data", simulated=False)
    assert "2 of 3</b>" in page
    assert page.count('<span class="badge warn">quarantined</span>') == 1
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


def test_the_test_day_is_named_and_marked(days: tuple[DayReport, ...]) -> None:
    first = days[0].model_copy(update={"date": DATES[1]})
    page = render((first, *days[1:]), source="x", simulated=False, test_date=DATES[1])
    assert f"Test day {DATES[1]}" in page
    assert page.count(">test day</span>") == 2  # in the overview and above the day
    assert ">test day<" not in render(days, source="x", simulated=False)


def test_odd_days_come_first(days: tuple[DayReport, ...]) -> None:
    dates = [DATES[0] + dt.timedelta(days=number) for number in range(6)]
    own = [days[0].model_copy(update={"date": date}) for date in dates]
    own[2] = own[2].model_copy(update={"rows": 3450})
    page = render(own, source="x", simulated=False, test_date=dates[-1])
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page[page.index("<h1>") :]))
    line = f"{SYMBOLS[0]} {dates[2]} : 2.3x the rows of its median day (3,450, median 1,500)"
    assert text.index(line) < text.index("Overview")
    assert "Odd: 2.3x the rows of its median day (3,450, median 1,500)." in text


def test_too_few_days_are_said_to_be_too_few(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="x", simulated=False)
    assert f"Too few days to compare: {SYMBOLS[0]} (2 of 5)" in page


def test_days_that_passed_are_folded(days: tuple[DayReport, ...]) -> None:
    page = render(days, source="x", simulated=False)
    assert page.count('<details class="day" open>') == sum(not day.passed for day in days) == 1
    assert page.count('<details class="day">') == 2


def test_the_page_can_be_read_by_a_screen_reader_and_a_keyboard(
    days: tuple[DayReport, ...],
) -> None:
    own = [day.model_copy(update={"symbol": f"S{number}"}) for number, day in enumerate(days)]
    page = render(own, source="x", simulated=False)
    assert page.count("<h1>") == 1
    assert not re.findall(r"<th(?! scope)[^e]", page)
    assert page.count('class="scroll"') == page.count('tabindex="0"')
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="S\d', page)) == len(days)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
