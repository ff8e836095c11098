"""The validation report: one static HTML page, readable offline (no script, no CDN)."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_code.market.quality import DayReport, ExpectationResult, FaultSample
from model_code.pages.page import environment
from tasks.validation.oddities import oddities, too_few

PLOT_WIDTH, PLOT_HEIGHT = 920, 120
MOST_ODD = 12  # in the list at the top; the others are under their day
_PLOT_BARS = 240  # at most: a full day is plotted in steps of six minutes


@dataclass(frozen=True)
class Bar:
    """One bar of the plot, in pixels; `text` is its tooltip."""

    x: float
    width: float
    height: float
    fault_height: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Rows and faults over the session; `ticks` are (x, `HH:MM`)."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    most: int
    minutes: int


def plot(minutes: Sequence[tuple[int, int, int]]) -> Plot | None:
    """Lay out rows and faults by minute, from the first minute to the last.

    Args:
        minutes: (minute of the UTC day, rows, rows at fault), sorted; `DayReport.minutes`.

    Returns:
        None if there is nothing to draw.
    """
    if not minutes:
        return None
    first, last = minutes[0][0], minutes[-1][0]
    step = math.ceil((last - first + 1) / _PLOT_BARS)
    count = math.ceil((last - first + 1) / step)
    rows, faults = [0] * count, [0] * count
    for minute, seen, wrong in minutes:
        rows[(minute - first) // step] += seen
        faults[(minute - first) // step] += wrong
    most, width = max(rows), PLOT_WIDTH / count
    bars = tuple(
        Bar(
            x=round(i * width, 2),
            width=round(max(width - 1, width * 0.8), 2),
            height=round(PLOT_HEIGHT * rows[i] / most, 2),
            # a single fault must stay visible
            fault_height=round(max(PLOT_HEIGHT * faults[i] / most, 2.0), 2) if faults[i] else 0.0,
            text=f"{_clock(first + i * step)} UTC: {rows[i]:,} rows, {faults[i]:,} faulty",
        )
        for i in range(count)
        if rows[i]
    )
    every = math.ceil(count / 8)
    ticks = tuple((round(i * width, 2), _clock(first + i * step)) for i in range(0, count, every))
    return Plot(bars=bars, ticks=ticks, most=most, minutes=step)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _verdict(item: ExpectationResult) -> str:
    if item.success:
        return "pass"
    return "quarantined" if item.level == "row" else "fail"


def _samples_by_reason(day: DayReport) -> dict[str, list[FaultSample]]:
    return {
        reason: [sample for sample in day.samples if reason in sample.reason.split(";")]
        for reason in day.faults
    }


def render(
    days: Sequence[DayReport],
    *,
    source: str,
    simulated: bool,
    test_date: dt.date | None = None,
) -> str:
    """Render one HTML page for all days.

    Args:
        days: reports, in the order in which they are shown.
        source: what was validated, e.g. the market store's URI.
        simulated: show a banner that the ticks are simulated.
        test_date: the day that the model is judged on; None: every day is for training.
    """
    templates = environment(Path(__file__).parent)
    templates.filters |= {
        "plot": plot, "verdict": _verdict, "samples_by_reason": _samples_by_reason
    }  # fmt: skip
    return templates.get_template("report.html.j2").render(
        days=days,
        source=source,
        simulated=simulated,
        test_date=test_date,
        odd=oddities(days, test_date),
        few=too_few(days),
        most_odd=MOST_ODD,
        failed=sum(not day.passed for day in days),
        rows=sum(day.rows for day in days),
        quarantined=sum(day.quarantined for day in days),
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
    )
