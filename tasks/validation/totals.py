"""What validation adds up over the chunks of a day."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from model_code.market.profiles import Limits
from model_code.market.quality import ExpectationResult, FaultSample, RowRule, count_faults
from model_code.market.schema import TICKS
from tasks.validation import expectations
from tasks.validation.expectations import Outcome
from tasks.validation.figures import rows_at_fault
from tasks.validation.median import Median

SAMPLES_PER_REASON = 20
_DAY_NS = 86_400 * 10**9
_MINUTE_NS = 60 * 10**9
_MINUTES = 24 * 60


class RowTotals:
    """Faults, extremes and minutes of the rows so far.

    Args:
        rules: the row rules.
        bounds: thresholds.
    """

    def __init__(self, rules: Sequence[RowRule], bounds: Limits) -> None:
        self._rules, self._bounds = rules, bounds
        self._outcomes = {rule.name: Outcome(success=True, unexpected=0) for rule in rules}
        self._columns = list(dict.fromkeys(rule.column for rule in rules))
        self._ranges: list[pl.DataFrame] = []
        self._absent: Counter[str] = Counter()
        self._waiting: list[pl.DataFrame] = []
        self._spread = Median()
        self._minutes = np.zeros((2, _MINUTES), np.int64)
        self.rows = self.repeated = self.at_fault = 0
        self._faults: Counter[str] = Counter()

    def add(self, measures: pl.DataFrame, by_rule: pl.DataFrame) -> None:
        """Take the next rows.

        Args:
            measures: see `Measures.derive`.
            by_rule: see `find_faults`.
        """
        self.rows += len(measures)
        self.at_fault += rows_at_fault(by_rule, self._bounds)
        self._faults.update(count_faults(by_rule))
        faulty = by_rule.select(pl.any_horizontal(pl.all())).to_series()
        self._add_minutes(measures, faulty)
        repeat = measures["repeat"] != 0
        repeated = int(repeat.sum())
        self.repeated += repeated
        if repeated:
            measures, faulty = measures.filter(~repeat), faulty.filter(~repeat)
        self._spread.add(measures["spread_bps"].drop_nulls().to_numpy())
        self._absent.update({name: measures[name].null_count() for name in self._columns})
        self._witness(measures.select(self._columns), faulty)

    def _witness(self, measures: pl.DataFrame, faulty: pl.Series) -> None:
        """Keep what decides the expectations: rows at fault, and each measure's ends and a null."""
        ends = measures.select(
            *(pl.col(name).arg_min().alias(f"{name} low") for name in self._columns),
            *(pl.col(name).arg_max().alias(f"{name} high") for name in self._columns),
        ).row(0)
        empty = [int(measures[n].is_null().arg_max() or 0) for n in self._columns if len(measures)]
        places = {place for place in (*ends, *empty) if place is not None}
        chosen = np.union1d(faulty.arg_true().to_numpy(), np.array(sorted(places), np.int64))
        found = measures[chosen.astype(np.int64)]
        self._ranges.append(
            found.select(
                *(pl.col(n).min().cast(pl.Float64).alias(f"{n} low") for n in self._columns),
                *(pl.col(n).max().cast(pl.Float64).alias(f"{n} high") for n in self._columns),
            )
        )
        self._waiting.append(found)
        if sum(map(len, self._waiting)) >= expectations.CHUNK_ROWS:
            self._evaluate()

    def _evaluate(self) -> None:
        found = expectations.row_outcomes(pl.concat(self._waiting), self._rules)
        self._waiting.clear()
        for name, outcome in found.items():
            self._outcomes[name] = self._outcomes[name] + outcome

    def _add_minutes(self, measures: pl.DataFrame, faulty: pl.Series) -> None:
        inside = measures["session_hour"].is_between(0.0, 24.0, closed="left")
        rows = inside.fill_null(value=False)
        minute = (measures["timestamp"].filter(rows) % _DAY_NS // _MINUTE_NS).to_numpy()
        self._minutes[0] += np.bincount(minute, minlength=_MINUTES)
        wrong = minute[faulty.filter(rows).to_numpy()]
        self._minutes[1] += np.bincount(wrong, minlength=_MINUTES)

    @property
    def faults(self) -> dict[str, int]:
        """Rows that break each rule, in the rules' order; rules that no row breaks are omitted."""
        return {r.name: self._faults[r.name] for r in self._rules if self._faults[r.name]}

    @property
    def minutes(self) -> tuple[tuple[int, int, int], ...]:
        """(minute of the UTC day, rows, rows at fault) of rows inside the session, by minute."""
        rows, faults = self._minutes.tolist()
        return tuple((i, rows[i], faults[i]) for i in range(_MINUTES) if rows[i])

    @property
    def spread_bps(self) -> float | None:
        """Median spread over mid, without repeats."""
        found = self._spread.value
        return found if found is not None and np.isfinite(found) else None

    def results(self) -> list[ExpectationResult]:
        """The rules as expectations; Great Expectations' verdict on the rows that decide them."""
        self._evaluate()
        ranges = pl.concat(self._ranges).select(pl.col("^.* low$").min(), pl.col("^.* high$").max())
        ends = ranges.row(0, named=True)
        return [
            self._result(rule, ends[f"{rule.column} low"], ends[f"{rule.column} high"])
            for rule in self._rules
        ]

    def _result(self, rule: RowRule, low: float | None, high: float | None) -> ExpectationResult:
        if rule.required:
            observed = f"{self._absent[rule.column]:,} absent"
        elif low is None or high is None:
            observed = "no values"
        else:
            ends = [low] * (rule.minimum is not None) + [high] * (rule.maximum is not None)
            observed = " to ".join(f"{end:.6g}" for end in ends)
        found = self._outcomes[rule.name]
        return ExpectationResult(
            name=rule.name,
            meaning=rule.meaning,
            level="row",
            columns=rule.source,
            success=found.success,
            unexpected=found.unexpected,
            observed=observed,
            limit=rule.limit,
        )


class Samples:
    """The first SAMPLES_PER_REASON quarantined rows of each reason, each row once."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._found: list[FaultSample] = []

    def add(self, quarantined: pa.Table) -> None:
        """Take the next quarantined rows, with `row` and `reason`."""
        reasons = pl.Series(quarantined["reason"]).str.split(";")
        chosen: set[int] = set()
        for name in reasons.explode().drop_nulls().unique().to_list():
            places = reasons.list.contains(name).arg_true()
            chosen |= set(places.head(max(SAMPLES_PER_REASON - self._seen[name], 0)))
            self._seen[name] += len(places)
        picked = quarantined.take(pa.array(sorted(chosen), pa.int64()))
        texts = [
            ["" if value is None else value for value in picked[name].cast(pa.string()).to_pylist()]
            for name in TICKS.names
        ]
        self._found += [
            FaultSample(row=row, reason=reason, values=dict(zip(TICKS.names, values, strict=True)))
            for row, reason, *values in zip(
                picked["row"].to_pylist(), picked["reason"].to_pylist(), *texts, strict=True
            )
        ]

    @property
    def found(self) -> tuple[FaultSample, ...]:
        """In row order."""
        return tuple(self._found)
