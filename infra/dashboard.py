"""One self-contained HTML page of the latest nightly runs: no server, no scripts, inline plots."""

import datetime as dt
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_code.artifacts import atomic_file
from model_code.monitoring.history import FINISHED, History, Night

# Okabe and Ito (2008): distinguishable for colour-blind readers
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
STAGE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#999999")
LATENCY_GOAL_MS = 10.0
MAX_DRAWN = 30


def write(history: History, path: Path, *, now: dt.datetime) -> None:
    """Write the page.

    Args:
        history: runs newest first.
        path: of the HTML file.
        now: with a time zone; ages are relative to it.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(render(history, now=now), encoding="utf-8")


def render(history: History, *, now: dt.datetime) -> str:
    """The page's HTML."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    templates.filters |= {"number": _number, "age": age, "minute": _minute}
    oldest_first = list(reversed(history.nights[:MAX_DRAWN]))
    newest = history.newest()
    return templates.get_template("dashboard.html.j2").render(
        history=history,
        newest=newest,
        finished=history.newest(FINISHED),
        champion_age=age(now - history.champion.since) if history.champion else None,
        exception=history.exception,
        now=now,
        plots=_plots(oldest_first),
        simulated=any(night.simulated for night in history.nights),
    )


def age(span: dt.timedelta) -> str:
    """A duration in its two largest units."""
    minutes = int(span.total_seconds() // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _plots(nights: Sequence[Night]) -> list[tuple[str, Markup]]:
    found = [
        ("AUC on the test day", _lines(nights, {"auc": BLUE, "baseline_auc": ORANGE}, "AUC")),
        (
            "Latency of the chosen engine, batch 1",
            _lines(nights, {"p50_ms": BLUE, "p99_ms": RED}, "ms", limit=LATENCY_GOAL_MS),
        ),
        ("Time by stage", _stages(nights)),
    ]
    return [(title, plot) for title, plot in found if plot]


def _lines(
    nights: Sequence[Night], keys: dict[str, str], unit: str, limit: float | None = None
) -> Markup | None:
    """One line per metric; runs without the metric are gaps."""
    if not any(key in night.metrics for night in nights for key in keys):
        return None
    figure, axes = _axes(nights, unit)
    for key, colour in keys.items():
        values = [night.metrics.get(key, float("nan")) for night in nights]
        axes.plot(range(len(nights)), values, marker="o", markersize=4, color=colour, label=key)
    if limit is not None:
        axes.axhline(limit, color=RED, linewidth=0.8, linestyle=":", label=f"goal {limit:g} {unit}")
    axes.legend(loc="best", fontsize=8, frameon=False)
    return _svg(figure)


def _stages(nights: Sequence[Night]) -> Markup | None:
    """Stacked bars of the six longest stages and the sum of the others."""
    totals: dict[str, float] = {}
    for night in nights:
        for stage in night.stages:
            totals[stage.name] = totals.get(stage.name, 0.0) + stage.seconds
    if not totals:
        return None
    longest = sorted(totals, key=lambda name: totals[name], reverse=True)[:6]
    figure, axes = _axes(nights, "s")
    floor = [0.0] * len(nights)
    for name, colour in zip([*longest, "others"], STAGE_COLOURS, strict=False):
        heights = [
            sum(
                stage.seconds
                for stage in night.stages
                if (stage.name if stage.name in longest else "others") == name
            )
            for night in nights
        ]
        if any(heights):
            axes.bar(range(len(nights)), heights, bottom=floor, color=colour, label=name)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    return _svg(figure)


def _axes(nights: Sequence[Night], unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_ylabel(unit)
    step = max(1, len(nights) // 8)
    axes.set_xticks(
        range(0, len(nights), step),
        [f"{night.started:%d %b}\n{night.started:%H:%M}" for night in nights[::step]],
        fontsize=8,
    )
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704  (matplotlib escapes its texts)


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _minute(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M}"
