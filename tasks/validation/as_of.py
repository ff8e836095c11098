"""The validated ticks of an earlier run, for a night that is computed again on what that run saw.

The market's files may have changed since: the ticks come from the artefact store.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from model_code.errors import ConfigError, IntegrityError
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec, NightlySpec, Settings
from tasks.caching.stage import RunRef, stage
from tasks.nightly.find_days import supplements_of
from tasks.nightly.records import Plan, Record, Supplements, ValidatedDay
from tasks.runs import mlflow_runs
from tasks.runs.stored import specification_of, stored_run

FILE = "validation/ticks.json"  # artifact of every run that validates ticks
DECIDES = (  # keys of the specification that choose or validate ticks
    "market",
    "instruments",
    "train_days",
    "test_date",
    "allow_missing",
    "validation",
    "calendar",
)


class SeenTicks(Record):
    """What a run was computed from.

    Attributes:
        run: its MLflow run.
        plan: the instrument-days, each with the hash of its source bytes.
        days: validated, with references to their clean rows.
    """

    run: str
    plan: Plan
    days: tuple[ValidatedDay, ...]


def publish_seen(run: RunRef, plan: Plan, days: tuple[ValidatedDay, ...]) -> None:
    """Write what `seen_by` reads to MLflow."""
    seen = SeenTicks(run=run.mlflow_run_id, plan=plan, days=days)
    mlflow = mlflow_runs.client(run.settings)
    mlflow.log_text(run.mlflow_run_id, seen.model_dump_json(), FILE)


def seen_by(settings: Settings, name: str, spec: NightlySpec) -> SeenTicks:
    """What an earlier run was computed from.

    Args:
        settings: where MLflow is.
        name: the run's name or id.
        spec: must choose and validate ticks as the run's does.

    Raises:
        ConfigError: there is no such run, it did not record its ticks, or its specification chooses
            or validates other ticks.
    """
    mlflow = mlflow_runs.client(settings)
    try:
        run_id = stored_run(mlflow, name).info.run_id
        with TemporaryDirectory() as folder:
            path = Path(mlflow.download_artifacts(run_id, FILE, folder))
            seen = SeenTicks.model_validate_json(path.read_bytes())
    except (MlflowException, OSError, ValidationError) as error:
        raise ConfigError(
            f"the ticks that {name!r} saw are not known: {str(error).partition(chr(10))[0]}",
            where=f"{settings.tracking_uri}, {FILE}",
            remedy="name a nightly of this version of Tickline, or leave --as-of out",
        ) from error
    before = specification_of(mlflow, run_id)
    tested = {str(seen.plan.test_date)} if seen.plan.test else set()
    for key in DECIDES:
        old, new = getattr(before, key), getattr(spec, key)
        if old != new and not (key == "test_date" and new in tested):
            raise ConfigError(
                f"{key} is {new!r}, but {name} saw its ticks with {old!r}",
                where="--as-of",
                remedy=f"leave {key} as it was, or leave --as-of out",
            )
    return seen


@stage("recall", run_name="recall {day.symbol} {day.date}")
def recall(run: RunRef, seen_by: str, day: ValidatedDay) -> ValidatedDay:
    """Check that the day's clean rows are still stored, byte for byte.

    Raises:
        ConfigError: `tickline gc` has deleted them.
    """
    try:
        run.store.open(day.clean)
        run.store.open(day.report)
    except IntegrityError as error:
        raise ConfigError(
            f"the ticks of {day.symbol} {day.date} that run {seen_by} saw are not stored any more",
            where=error.where,
            remedy="leave --as-of out to compute on the market's files as they are now. "
            "tickline gc --keep-days says how long ticks of nights are kept",
        ) from error
    return day


def require_supplements(plan: Plan, spec: FeatureSpec, days: tuple[ValidatedDay, ...]) -> None:
    """Check that depth rows and exogenous tables are those of the plan: they are not stored.

    Args:
        plan: of the earlier run.
        spec: with the feature set named.
        days: of the plan.

    Raises:
        ConfigError: one of those that the features need has changed.
    """
    found = [Supplements.of(plan, spec, day.day) for day in days]
    needed = {name: digest for each in found if each for name, digest in each.digests.items()}
    if not needed:
        return
    store = open_market(plan.days[0].market)
    now = {
        name: digest
        for day in plan.days
        for name, digest in supplements_of(store, InstrumentDay(day.date, day.symbol))
    }
    changed = [name for name, digest in needed.items() if now.get(name) != digest]
    if changed:
        raise ConfigError(
            f"changed since, and not stored: {', '.join(changed)}",
            where=plan.days[0].market,
            remedy="restore the file, choose a feature set without it, or leave --as-of out",
        )
