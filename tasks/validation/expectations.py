"""The named expectations as Great Expectations suites.

Great Expectations takes 7-11 s to import, so it is imported on first use. It evaluates the measures
of `model_code/market/measures.py` against the bounds of `row_rules`. No threshold is defined here.
"""

import functools
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import polars as pl
import polars.selectors as cs
import pyarrow as pa

from model_code.errors import DataError
from model_code.market.quality import RowRule
from model_code.market.schema import TICKS

CHUNK_ROWS = 500_000  # rows of measures in pandas at once


@dataclass(frozen=True)
class Outcome:
    """Great Expectations' result for one expectation, and how many rows break it."""

    success: bool
    unexpected: int

    def __add__(self, other: "Outcome") -> "Outcome":
        """The outcome for the rows of both."""
        return Outcome(self.success and other.success, self.unexpected + other.unexpected)


@functools.cache
def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports deprecated modules
        import great_expectations
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return great_expectations


@functools.cache
def _batch_definition() -> Any:
    gx = _great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("ticks").add_dataframe_asset("measures")
    return asset.add_batch_definition_whole_dataframe("whole")


def evaluate(frame: pd.DataFrame, expectations: Sequence[Any]) -> dict[str, Outcome]:
    """Validate `frame`; outcomes by the expectations' `meta["name"]`.

    Raises:
        DataError: an expectation could not be evaluated.
    """
    suite = _great_expectations().ExpectationSuite("day", expectations=list(expectations))
    batch = _batch_definition().get_batch(batch_parameters={"dataframe": frame})
    found = batch.validate(
        suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0}
    )
    return dict(_outcomes(found.results))


def _outcomes(results: Sequence[Any]) -> Iterator[tuple[str, Outcome]]:
    for result in results:
        name = result.expectation_config.meta["name"]
        raised = result.exception_info or {}
        # one dict, or one per metric
        for info in (raised, *(value for value in raised.values() if isinstance(value, dict))):
            if info.get("raised_exception"):
                raise DataError(
                    f"expectation {name} could not be evaluated: {info['exception_message']}",
                    where="Great Expectations",
                    remedy="check the column's values and types",
                )
        success = bool(result.success)
        yield name, Outcome(success, int(result.result.get("unexpected_count", not success)))


def row_outcomes(measures: pl.DataFrame, rules: Sequence[RowRule]) -> dict[str, Outcome]:
    """Evaluate every row rule in chunks and add up the unexpected counts."""
    suite = [row_expectation(rule) for rule in rules]
    totals = {rule.name: Outcome(success=True, unexpected=0) for rule in rules}
    columns = list(dict.fromkeys(rule.column for rule in rules))
    for chunk in measures.select(columns).iter_slices(CHUNK_ROWS):
        # Great Expectations compares other types value by value, in Python
        numbers = chunk.cast({cs.signed_integer() - cs.by_dtype(pl.Int64): pl.Float64})
        frame = numbers.to_arrow().to_pandas(split_blocks=True)
        for name, found in evaluate(frame, suite).items():
            totals[name] = totals[name] + found
    return totals


def row_expectation(rule: RowRule) -> Any:
    """Return the rule as a Great Expectations expectation on its measure."""
    gxe = _great_expectations().expectations
    meta = {"name": rule.name}
    if rule.required:
        return gxe.ExpectColumnValuesToNotBeNull(column=rule.column, meta=meta)
    return gxe.ExpectColumnValuesToBeBetween(
        column=rule.column,
        min_value=rule.minimum,
        max_value=rule.maximum,
        strict_min=rule.strict and rule.minimum is not None,
        strict_max=rule.strict and rule.maximum is not None,
        meta=meta,
    )


def schema_outcomes(schema: pa.Schema) -> dict[str, Outcome]:
    """Evaluate `columns` and `column_types` of a tick table against `TICKS`."""
    gxe = _great_expectations().expectations
    columns = gxe.ExpectTableColumnsToMatchOrderedList(
        column_list=TICKS.names, meta={"name": "columns"}
    )
    types = gxe.ExpectColumnPairValuesToBeEqual(
        column_A="expected", column_B="found", meta={"name": "column_types"}
    )
    found = {field.name: str(field.type) for field in schema}
    table = pd.DataFrame(
        {
            "expected": [str(field.type) for field in TICKS],
            "found": [found.get(field.name, "absent") for field in TICKS],
        }
    )
    return evaluate(pd.DataFrame(columns=schema.names), [columns]) | evaluate(table, [types])


def day_outcomes(
    figures: Mapping[str, tuple[float | None, float | None, float | None]],
) -> dict[str, Outcome]:
    """Evaluate the day's own figures.

    Args:
        figures: by expectation name: value (None if it cannot be computed), minimum, maximum.
    """
    gxe = _great_expectations().expectations
    suite = [
        gxe.ExpectColumnValuesToBeBetween(
            column=name, meta={"name": name}, min_value=minimum, max_value=maximum
        )
        for name, (_, minimum, maximum) in figures.items()
    ]
    values = {name: [value] for name, (value, _, _) in figures.items()}
    return evaluate(pd.DataFrame(values, dtype="float64"), suite)
