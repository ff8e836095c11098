"""The figures that a reviewer decides by, for the top of the evidence page and of the form."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from model_code.benchmark.result import BenchmarkResult, EngineRow
from model_code.benchmark.verdict import GoalRow, Verdict
from model_code.features.drift import LARGE
from model_code.settings import CHAMPION_ROW

UNKNOWN = "not recorded"


def auc(candidate: EngineRow | None) -> str:
    """The candidate's AUC on the test day."""
    found = None if candidate is None else candidate.quality.auc
    return UNKNOWN if found is None else f"{found:.4f}"


def rivals(
    verdict: Verdict, benchmark: BenchmarkResult | None, candidate: EngineRow | None
) -> tuple[str, ...]:
    """The AUC of champion and gradient boosting on the same windows, and the base rate.

    Boosting is free: a candidate that is not ahead of it needs a reason to serve.
    """
    champion = None if benchmark is None else benchmark.row(CHAMPION_ROW)
    of_champion = None if champion is None else champion.quality.auc
    boosting = over(verdict, "boosting")
    of_boosting = None if boosting is None else boosting.reference
    rate = None if candidate is None else candidate.quality.base_rate
    return (
        "champion: none"
        if of_champion is None
        else f"champion {of_champion:.4f}{gain(over(verdict, 'champion'))}",
        "gradient boosting: not compared"
        if of_boosting is None
        else f"gradient boosting {of_boosting:.4f}{gain(boosting)}",
        "base rate not recorded" if rate is None else f"base rate {100 * rate:.1f}%",
    )


def over(verdict: Verdict, whom: str) -> GoalRow | None:
    """The goal that compares the AUC with another model's: "champion" or "boosting"."""
    return next((row for row in verdict.rows if row.metric == "auc" and row.over == whom), None)


def gain(row: GoalRow | None) -> str:
    """The interval of the candidate's gain over the other model; empty if it was not resampled."""
    if row is None or row.interval is None:
        return ""
    return f" (gain {row.interval.low:+.4f} .. {row.interval.high:+.4f})"


def gain_note(verdict: Verdict) -> str:
    """What the intervals of `rivals` are; empty if it gives none."""
    rows = (over(verdict, "champion"), over(verdict, "boosting"))
    found = {row.interval.confidence for row in rows if row and row.interval}
    sizes = " and ".join(f"{100 * one:g}%" for one in sorted(found))
    return f"gain: {sizes} interval of the AUC difference" if found else ""


def latency(benchmark: BenchmarkResult | None) -> str:
    """The champion's p99 beside the candidate's."""
    champion = None if benchmark is None else benchmark.row(CHAMPION_ROW)
    if champion is None:
        return "champion: none"
    measured = "" if champion.facts.same_engine else ", of its ONNX graph, not its engine"
    return f"champion {champion.p99_ms:.2f} ms{measured}"


def drifted(drift: Mapping[str, float]) -> str:
    """The features whose shift is large."""
    names = [name for name, psi in drift.items() if psi > LARGE]
    if not drift:
        return UNKNOWN
    return f"{len(names)} of {len(drift)}" + (f": {', '.join(names)}" if names else "")


def faults(days: Iterable[Mapping[str, Any]]) -> str:
    """How many rows of all days of the night were quarantined."""
    counts = [(int(day["rows"]), int(day["quarantined"])) for day in days if "quarantined" in day]
    if not counts:
        return UNKNOWN
    rows, quarantined = (sum(part) for part in zip(*counts, strict=True))
    return f"{quarantined:,} of {rows:,} rows"


def fault_kinds(days: Iterable[Mapping[str, Any]]) -> str:
    """How many rows each fault quarantined, the most frequent first; empty if there were none."""
    counts: Counter[str] = Counter()
    for day in days:
        for part in str(day.get("faults", "none")).split(", "):
            name, _, count = part.rpartition(" ")
            if name and count.isdigit():
                counts[name] += int(count)
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def test_date(days: Iterable[Mapping[str, Any]]) -> str:
    """The newest date of the night: what everything is judged on."""
    dates = [str(day["date"]) for day in days if "date" in day]
    return max(dates, default=UNKNOWN)
