"""One self-contained HTML page of the latest nightly runs: no server, no scripts, inline plots."""

import datetime as dt
import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_code.artifacts import atomic_file
from model_code.monitoring.history import FINISHED, History, Night
from model_code.pages.page import environment

# names of the stylesheet's colours; each is drawn in a colour that stands for it
PALETTE = ("ink", "soft", "line", "paper", "s1", "s2", "s3", "s4", "s5", "s6", "s7")
DRAWN = {name: f"#fe00{number:02x}" for number, name in enumerate(PALETTE)}
LATENCY_GOAL_MS = 10.0
MAX_DRAWN = 30
SHOWN_STAGES = 6
LINES = (("s1", "o-"), ("s2", "s--"))  # the colour and the style of each line
WIDTH_IN, WIDE_IN = 6.4, 13.1  # of a figure that fills half the page, or all of it


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
    """The page's HTML. Nights on simulated ticks have a table of their own."""
    templates = environment(Path(__file__).parent)
    templates.filters |= {"number": _number, "age": age, "minute": _minute}
    real = history.model_copy(
        update={"nights": tuple(night for night in history.nights if not night.simulated)}
    )
    return templates.get_template("dashboard.html.j2").render(
        history=history,
        nights=real.nights,
        simulated=[night for night in history.nights if night.simulated],
        newest=real.newest(),
        finished=real.newest(FINISHED),
        missed=history.missed(),
        exception=history.exception,
        now=now,
        plots=_plots(list(reversed(real.nights[:MAX_DRAWN]))),
    )


def age(span: dt.timedelta) -> str:
    """A duration in its two largest units."""
    minutes = int(span.total_seconds() // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _plots(nights: Sequence[Night]) -> list[tuple[str, Markup]]:
    """Title and picture of what is known of the nights, oldest first."""
    aucs = {"auc": "chosen engine", "baseline_auc": "gradient boosting"}
    latencies = {"p50_ms": "median (p50)", "p99_ms": "99th percentile (p99)"}
    return [
        *_lines("AUC on the test day", nights, aucs, "AUC"),
        *_lines(
            "Latency of the chosen engine at batch 1", nights, latencies, "ms", LATENCY_GOAL_MS
        ),
        *_stages("Time by stage", nights),
    ]


def _lines(
    title: str,
    nights: Sequence[Night],
    keys: dict[str, str],
    unit: str,
    limit: float | None = None,
) -> list[tuple[str, Markup]]:
    """One line per metric; runs without the metric are gaps. Nothing if no run has any."""
    if not any(key in night.metrics for night in nights for key in keys):
        return []
    figure, axes = _axes(nights, unit)
    for (key, label), (name, style) in zip(keys.items(), LINES, strict=True):
        values = [night.metrics.get(key, float("nan")) for night in nights]
        axes.plot(range(len(nights)), values, style, ms=4, color=DRAWN[name], label=label)
    if limit is not None:
        axes.axhline(limit, color=DRAWN["soft"], lw=1, ls=":", label=f"goal, {limit:g} {unit}")
    return [(title, _svg(figure, axes, f"{title}: {', '.join(keys.values())}, by night"))]


def _stages(title: str, nights: Sequence[Night]) -> list[tuple[str, Markup]]:
    """Stacked bars of the longest stages and the sum of the others. Nothing if none is known."""
    totals: dict[str, float] = {}
    for night in nights:
        for stage in night.stages:
            totals[stage.name] = totals.get(stage.name, 0.0) + stage.seconds
    if not totals:
        return []
    longest = sorted(totals, key=lambda name: totals[name], reverse=True)[:SHOWN_STAGES]
    figure, axes = _axes(nights, "s", WIDE_IN)
    floor = [0.0] * len(nights)
    for number, name in enumerate([*longest, "other stages"], 1):
        heights = [
            sum(
                stage.seconds
                for stage in night.stages
                if (stage.name if stage.name in longest else "other stages") == name
            )
            for night in nights
        ]
        if any(heights):
            axes.bar(
                range(len(nights)), heights, bottom=floor, color=DRAWN[f"s{number}"],
                edgecolor=DRAWN["paper"], linewidth=0.8, width=min(0.8, 0.1 * len(nights)),
                label=name,
            )  # fmt: skip
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    return [(title, _svg(figure, axes, f"{title}: seconds of {', '.join(longest)}, by night"))]


def _axes(nights: Sequence[Night], unit: str, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    axes.set_ylabel(unit, color=DRAWN["soft"])
    axes.set_xlim(-0.6, len(nights) - 0.4)
    step = max(1, -(-len(nights) // 8))
    axes.set_xticks(
        range(0, len(nights), step),
        [f"{night.started:%d %b}\n{night.started:%H:%M}" for night in nights[::step]],
    )
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(colors=DRAWN["soft"], labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(DRAWN["soft"])
    axes.grid(axis="y", linewidth=0.6, color=DRAWN["line"])
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, axes: Axes, label: str) -> Markup:
    """The picture as part of the page: its colours follow the stylesheet."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=7, fontsize=10, frameon=False,
        labelcolor=DRAWN["ink"], borderaxespad=0.2, columnspacing=1.2, handlelength=1.8,
    )  # fmt: skip
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in every picture
    for name, colour in DRAWN.items():
        text = text.replace(colour, f"var(--{name})")
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(text)  # noqa: S704  (matplotlib escapes its texts)


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _minute(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M}"
