import datetime as dt
import re
from html.parser import HTMLParser
from pathlib import Path

from infra.dashboard import age, render, write
from model_code.monitoring.history import Due, History, NextNight
from tests.support.nights import NOW, night, sight

PAGES = {"mlflow_url": "http://mlflow/1", "prefect_url": "http://prefect/2"}
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def words(html: str) -> str:
    page = Balanced()
    page.feed(html)
    assert page.open == []
    return re.sub(r"\s+", " ", " ".join(page.text))


def test_the_page_shows_verdict_champion_and_every_run() -> None:
    html = render(sight(night(0, verdict="fail"), night(1), night(2)), now=NOW)
    text = words(html)
    assert "version 3 since 2026-11-10 10:00 UTC, for 10 d 2 h" in text
    assert "Last finished 5 h 50 min ago" in text
    assert "verdict fail" in text
    for name in ("night-0", "night-1", "night-2"):
        assert name in text
    assert "0.7000" in text
    assert "6.25" in text
    assert html.count("<svg") == 3
    assert "SIMULATED" not in text


def test_the_page_is_self_contained() -> None:
    html = render(sight(night(0, **PAGES), night(1, **PAGES)), now=NOW)
    assert "<script" not in html
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", html)
    linked = [target for target in loaded if target.startswith("http")]
    assert {*loaded} - {*linked} <= {"#content", "data:,"} | {
        target
        for target in loaded
        if target.startswith("#m")  # markers inside a picture
    }
    assert linked == re.findall(r'<a href="(http[^"]+)"', html)
    assert "url(http" not in html


def test_error_texts_are_escaped() -> None:
    html = render(sight(night(0, status="FAILED", error="<script>alert(1)</script>")), now=NOW)
    assert "<script" not in html
    assert "alert(1)" in words(html)


def test_simulated_runs_unreachable_stores_and_empty_homes_are_reported(tmp_path: Path) -> None:
    simulated = night(0, simulated=True, status="RUNNING", seconds=None, verdict=None, metrics={})
    text = words(render(sight(simulated, sources={"mlflow": True, "prefect": False}), now=NOW))
    assert "SIMULATED" in text
    assert "prefect did not respond" in text
    assert "version 3, no baseline: owner ada, lapses after" in text
    empty = History(nights=(), champion=None, sources={"mlflow": True, "prefect": True})
    write(empty, tmp_path / "nights.html", now=NOW)
    text = words((tmp_path / "nights.html").read_text())
    assert "none on market data To start one: tickline nightly" in text
    assert "none scheduled To schedule nights: tickline up" in text


def test_simulated_nights_are_apart() -> None:
    made_up = {"simulated": True, "metrics": {"auc": 0.9876}}
    html = render(sight(night(0, **made_up), night(1), night(2, **made_up)), now=NOW)
    text = words(html)
    before, _, after = text.partition("Simulated nights")
    assert "Newest night verdict pass night-1" in before
    assert "Last finished 1 d 5 h ago night-1" in before
    assert "night-0" not in before
    assert [name in after for name in ("night-0", "night-1", "night-2")] == [True, False, True]
    assert html.count("0.9876") == 2  # in the table, in no line
    alone = render(sight(night(0, **made_up)), now=NOW)
    assert "<svg" not in alone
    assert "Last finished never" in words(alone)


def test_a_cancelled_run_is_cancelled_and_no_failure() -> None:
    stopped = night(0, status="CANCELLED", verdict=None, error="a person cancelled the run")
    html = render(sight(stopped, night(1, status="FAILED", verdict=None)), now=NOW)
    assert '<span class="badge plain">cancelled</span>' in html
    assert html.count('<span class="badge fail">') == 1  # the one that failed
    assert "a person cancelled the run" in words(html)


def test_a_night_has_its_test_day_and_links_to_its_pages() -> None:
    html = render(sight(night(0, test_date=dt.date(2026, 11, 19), **PAGES)), now=NOW)
    assert html.count("2026-11-19") == 2
    for address in PAGES.values():
        assert f'<a href="{address}">' in html


def test_the_next_night_is_announced() -> None:
    start = NOW + dt.timedelta(hours=18)
    text = words(render(sight(upcoming=NextNight(start=start, paused=False)), now=NOW))
    assert "Next night in 18 h 0 min 2026-11-21 06:00 UTC" in text
    text = words(render(sight(upcoming=NextNight(start=start, paused=True)), now=NOW))
    assert "Next night paused To resume the schedule: tickline resume nightly" in text


def test_a_missed_night_is_named() -> None:
    due = Due(start=NOW - dt.timedelta(hours=6), deadline=NOW - dt.timedelta(hours=2))
    text = words(render(sight(night(1), due=due), now=NOW))
    assert "No night started: it was due by 2026-11-20 10:00 UTC" in text
    assert "Missed night" not in words(render(sight(night(0), due=due), now=NOW))


def test_the_page_can_be_read_by_a_screen_reader_and_a_keyboard() -> None:
    html = render(sight(night(0), night(1, simulated=True)), now=NOW)
    assert html.count("<h1>") == 1
    assert len(re.findall(r'<svg role="img" aria-label="[^"]{10,}"', html)) == 3
    assert re.findall(r"<th(?! scope)[^e]", html) == []
    wide = re.findall(r'<div class="scroll" role="region" aria-label="([^"]+)" tabindex="0">', html)
    assert wide == ["Nights on market data", "Simulated nights"]
    identifiers = re.findall(r'\bid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))


def test_the_pictures_follow_the_stylesheet() -> None:
    html = render(sight(night(0), night(1)), now=NOW)
    drawn = set(re.findall(r"var\(--(\w+)\)", html[html.index("<svg") : html.rindex("</svg>")]))
    assert {"ink", "soft", "line", "paper", "s1", "s2"} <= drawn
    assert "#fe00" not in html


def test_ages_have_two_units() -> None:
    assert age(dt.timedelta(minutes=5)) == "5 min"
    assert age(dt.timedelta(hours=3, minutes=7)) == "3 h 7 min"
    assert age(dt.timedelta(days=2, hours=23, minutes=59)) == "2 d 23 h"
