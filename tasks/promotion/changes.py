"""What differs between the nights of two model versions: specification, code, days, features."""

from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import BaseModel, ConfigDict

from model_code.settings.changes import differences, flat, from_yaml, shown
from tasks.runs import mlflow_runs
from tasks.runs.stored import instrument_days, night_of, spec_text

UNKNOWN = "not recorded"
SHORT = 12  # of a hash's digits


class Change(BaseModel):
    """One line of the evidence page: what changed, on the champion's side and the candidate's."""

    model_config = ConfigDict(frozen=True)

    name: str
    old: str
    new: str


def changes_since(mlflow: MlflowClient, run_id: str, champion: int) -> tuple[Change, ...]:
    """Compare a candidate's night with the champion's.

    Specifications are compared as they were logged, so a key that a later version added shows as
    new. A fact that one of the runs did not record is `not recorded`, never left out.

    Args:
        mlflow: tracking and registry client.
        run_id: of the candidate's night.
        champion: serving version.
    """
    new, old = _run(mlflow, run_id), _run(mlflow, night_of(mlflow, champion))
    before, after = (None if run is None else _values(mlflow, run) for run in (old, new))
    if before is None or after is None:
        sides = (UNKNOWN if values is None else "recorded" for values in (before, after))
        found = [Change(name="specification", old=next(sides), new=next(sides))]
    else:
        found = [
            Change(name=name, old=shown(left), new=shown(right))
            for name, (left, right) in differences(before, after).items()
        ]
    left, right = _facts(old), _facts(new)
    found += [
        Change(name=name, old=left[name], new=right[name])
        for name in left
        if left[name] != right[name] or left[name] == UNKNOWN
    ]
    return tuple(found)


def _run(mlflow: MlflowClient, run_id: str) -> Run | None:
    try:
        return mlflow.get_run(run_id) if run_id else None
    except MlflowException:  # deleted
        return None


def _values(mlflow: MlflowClient, run: Run) -> dict[str, Any] | None:
    text = spec_text(mlflow, run.info.run_id)
    document = None if text is None else from_yaml(text)
    return flat(document) if isinstance(document, Mapping) else None


def _facts(run: Run | None) -> dict[str, str]:
    """What the run's tags and datasets say, in the order of the page."""
    tags = run.data.tags if run else {}
    commit = tags.get(mlflow_runs.COMMIT_TAG, UNKNOWN)
    digits, dash, dirty = commit.partition("-")
    return {
        "code commit": commit if commit == UNKNOWN else digits[:SHORT] + dash + dirty,
        "training days": _days(run, "training"),
        "test day": _days(run, "test"),
        "features version": tags.get(mlflow_runs.FEATURES_TAG, UNKNOWN)[:SHORT],
    }


def _days(run: Run | None, context: str) -> str:
    """`2 days, 2024-08-07 to 2024-08-08, 2 instruments`."""
    days = instrument_days(run, context) if run else []
    if not days:
        return UNKNOWN
    dates = sorted({date for date, _ in days})
    symbols = len({symbol for _, symbol in days})
    span = dates[0] if len(dates) == 1 else f"{len(dates)} days, {dates[0]} to {dates[-1]}"
    return f"{span}, {symbols} instrument{'s' * (symbols > 1)}"
