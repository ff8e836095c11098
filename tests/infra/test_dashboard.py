import datetime as dt
import re
from html.parser import HTMLParser
from pathlib import Path

from infra.dashboard import age, render, write
from model_code.monitoring.history import History
from tests.support.nights import NOW, night, sight

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
    assert "version 3 for 10 d 2 h" in text
    assert "last finished 5 h 50 min ago" in text
    for name in ("night-0", "night-1", "night-2"):
        assert name in text
    assert "0.7000" in text
    assert "6.25" in text
    assert html.count("<svg") == 3
    assert "SIMULATED" not in text


def test_the_page_is_self_contained() -> None:
    html = render(sight(night(0), night(1)), now=NOW)
    assert "<script" not in html
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", html)
    assert all(target.startswith("#") for target in loaded)
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
    assert "No nightly run yet" in words((tmp_path / "nights.html").read_text())


def test_ages_have_two_units() -> None:
    assert age(dt.timedelta(minutes=5)) == "5 min"
    assert age(dt.timedelta(hours=3, minutes=7)) == "3 h 7 min"
    assert age(dt.timedelta(days=2, hours=23, minutes=59)) == "2 d 23 h"
