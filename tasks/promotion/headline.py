"""The figures that a reviewer decides by, for the top of the evidence page and of the form."""

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
    rate = None if candidate is None else candidate.quality.base_rate
    return (
        "champion: none" if of_champion is None else f"champion {of_champion:.4f}",
        boosting(verdict),
        "base rate not recorded" if rate is None else f"base rate {100 * rate:.1f}%",
    )


def boosting(verdict: Verdict) -> str:
    """Gradient boosting's AUC, and the 95% interval of the candidate's gain over it."""
    row = _over_boosting(verdict.rows)
    if row is None or row.reference is None:
        return "gradient boosting: not compared"
    found = f"gradient boosting {row.reference:.4f}"
    if row.interval is not None:
        found += f" (difference {row.interval.low:+.4f} .. {row.interval.high:+.4f})"
    return found


def latency(benchmark: BenchmarkResult | None) -> str:
    """The champion's p99 beside the candidate's."""
    champion = None if benchmark is None else benchmark.row(CHAMPION_ROW)
    return "champion: none" if champion is None else f"champion {champion.p99_ms:.2f} ms"


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


def test_date(days: Iterable[Mapping[str, Any]]) -> str:
    """The newest date of the night: what everything is judged on."""
    dates = [str(day["date"]) for day in days if "date" in day]
    return max(dates, default=UNKNOWN)


def _over_boosting(rows: Iterable[GoalRow]) -> GoalRow | None:
    found = (row for row in rows if row.metric == "auc" and row.over == "boosting")
    return next(found, None)
