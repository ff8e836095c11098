"""What `bench_scale` measured: a line through the sizes of each stage, the figures, the tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from model_code.machine import facts

MILLION = 1_000_000
DEVIATION, PEAK_GIB, ROWS_S, SPEED_UP = 0.15, 2.0, 1e6, 1.7  # aims


class Measured(NamedTuple):
    """One stage of one size.

    Attributes:
        ticks: which: simulated, or the reference.
        stage: its name.
        workers: instrument-days at once, each in a process of its own.
        rows: of each instrument-day.
        seconds: of the slowest worker.
        peak_gib: of the largest worker.
    """

    ticks: str
    stage: str
    workers: int
    rows: int
    seconds: float
    peak_gib: float


class Fit(NamedTuple):
    """A line through a stage's sizes: seconds = fixed_s + per_million_s * rows / 1e6.

    Attributes:
        deviation: largest relative difference of a measurement from the line; NaN of one size.
    """

    fixed_s: float
    per_million_s: float
    deviation: float


class Aim(NamedTuple):
    """A figure beside its aim."""

    name: str
    found: str
    aim: str
    met: bool


def fitted(found: Sequence[Measured]) -> dict[tuple[str, str, int], Fit]:
    """A line for each (ticks, stage, workers); through zero if there are fewer than three sizes.

    Relative differences are minimised, so that each size counts the same.
    """
    groups: dict[tuple[str, str, int], list[Measured]] = {}
    for one in found:
        groups.setdefault((one.ticks, one.stage, one.workers), []).append(one)
    return {key: line(group) for key, group in groups.items()}


def line(group: Sequence[Measured]) -> Fit:
    """The line through one stage's sizes; it never begins below zero."""
    seconds = np.array([one.seconds for one in group])
    millions = np.array([one.rows for one in group]) / MILLION
    both = np.stack([1 / seconds, millions / seconds], axis=1)
    ones = np.ones(len(group))
    fixed, slope = np.linalg.lstsq(both, ones)[0] if len(group) > 2 else (-1.0, 0.0)
    if fixed < 0:
        fixed, slope = 0.0, np.linalg.lstsq(both[:, 1:], ones)[0][0]
    deviation = np.abs(seconds / (fixed + slope * millions) - 1).max()
    return Fit(float(fixed), float(slope), float(deviation) if len(group) > 1 else math.nan)


def night_seconds(found: Sequence[Measured], workers: int) -> dict[str, tuple[int, float]]:
    """Rows of a day and seconds of both stages together at the largest size, by ticks."""
    return {
        ticks: (rows, sum(one.seconds for one in own if one.rows == rows))
        for ticks in dict.fromkeys(one.ticks for one in found)
        if (own := [one for one in found if (one.ticks, one.workers) == (ticks, workers)])
        for rows in [max(one.rows for one in own)]
    }


def speed_up(found: Sequence[Measured]) -> float:
    """Instrument-days an hour of two workers over those of one, at the largest size: the least."""
    one, two = night_seconds(found, 1), night_seconds(found, 2)
    return min((2 * one[ticks][1] / two[ticks][1] for ticks in two if ticks in one), default=0.0)


def rows_a_second(found: Sequence[Measured]) -> float:
    """Rows of both days over the seconds of both stages, on two workers: the least."""
    return min((2 * rows / s for rows, s in night_seconds(found, 2).values()), default=0.0)


def scale_aims(found: Sequence[Measured], fits: Mapping[Any, Fit]) -> list[Aim]:
    """The figures of the two stages beside their aims."""
    deviation = _worst(fits)
    peak, rate, faster = max(o.peak_gib for o in found), rows_a_second(found), speed_up(found)
    return [
        Aim("linear", f"within {deviation:.0%}", f"within {DEVIATION:.0%}", deviation <= DEVIATION),
        Aim("peak memory", f"{peak:.2f} GiB", f"under {PEAK_GIB:g} GiB a worker", peak < PEAK_GIB),
        Aim(
            "both stages, two cores", f"{rate / MILLION:.2f}M rows/s",
            f"at least {ROWS_S / MILLION:g}M rows/s", rate >= ROWS_S,
        ),
        Aim("2 workers", f"{faster:.2f}x of 1", f"at least {SPEED_UP:g}x", faster >= SPEED_UP),
    ]  # fmt: skip


def _worst(fits: Mapping[Any, Fit]) -> float:
    """Largest deviation of the stages with several sizes; NaN, which meets no aim, without one."""
    known = [fit.deviation for fit in fits.values() if not math.isnan(fit.deviation)]
    return max(known, default=math.nan)


def headline(found: Sequence[Measured], fits: Mapping[Any, Fit]) -> str:
    """The last line."""
    deviation = _worst(fits)
    peak = max(one.peak_gib for one in found)
    return (
        f"linear within {deviation:.0%}, peak {peak:.2f} GiB per worker, "
        f"speed-up of 2 workers {speed_up(found):.2f}x"
    )


def report(
    found: Sequence[Measured], fits: Mapping[tuple[str, str, int], Fit], aims: Sequence[Aim]
) -> Iterator[RenderableType]:
    """The tables and the machine."""
    stages = Table("ticks a day", "stage", "workers", "s", "s per million", "peak GiB")
    for one in found:
        stages.add_row(
            f"{one.rows / MILLION:g}M {one.ticks}", one.stage, str(one.workers),
            f"{one.seconds:.1f}", f"{one.seconds / one.rows * MILLION:.3f}", f"{one.peak_gib:.2f}",
        )  # fmt: skip
    yield stages
    lines = Table("ticks", "stage", "workers", "fixed s", "s per million", "within")
    for (ticks, stage, workers), fit in fits.items():
        within = "one size" if math.isnan(fit.deviation) else f"{fit.deviation:.0%}"
        lines.add_row(
            ticks, stage, str(workers),
            f"{fit.fixed_s:.2f}", f"{fit.per_million_s:.3f}", within,
        )  # fmt: skip
    yield lines
    judged = Table("figure", "measured", "aim", "")
    for aim in aims:
        judged.add_row(aim.name, aim.found, aim.aim, "pass" if aim.met else "miss")
    yield judged
    yield ", ".join(f"{name} {value}" for name, value in facts().items())
