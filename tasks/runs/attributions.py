"""Attribution profiles that nights logged to MLflow, and how they have moved since."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from model_code.attribution.profile import Drift, Profile
from tasks.runs.stored import night_of

FOLDER = "attribution"  # of a night's artifacts
PROFILE_FILE = "profile.json"
LOOKED_AT = 20  # earlier nights


def profile_of(mlflow: MlflowClient, run_id: str) -> Profile | None:
    """The profile that a night logged; None if it logged none, or one of another version."""
    if not run_id:
        return None
    try:
        with TemporaryDirectory() as folder:
            path = mlflow.download_artifacts(run_id, f"{FOLDER}/{PROFILE_FILE}", folder)
            return Profile.model_validate_json(Path(path).read_bytes())
    except (MlflowException, OSError, ValidationError):
        return None


def drift_since(mlflow: MlflowClient, profile: Profile | None, champion: int | str) -> Drift | None:
    """How a profile differs from that of the champion's night; None if one of them is missing."""
    before = profile_of(mlflow, night_of(mlflow, champion))
    if profile is None or before is None:
        return None
    return Drift.between(before, profile, f"the champion (version {champion})")


def drift_of(
    mlflow: MlflowClient, run_id: str, profile: Profile, champion: str | None
) -> Drift | None:
    """How a night's profile has moved; None if no earlier night logged one.

    Since the champion's night, if that logged a profile; else since the newest earlier night on
    the same market.

    Args:
        mlflow: tracking and registry client.
        run_id: of the night.
        profile: the night's.
        champion: serving version; None before the first promotion.
    """
    if champion is not None and (found := drift_since(mlflow, profile, champion)):
        return found
    own = mlflow.get_run(run_id)
    earlier = mlflow.search_runs(
        [own.info.experiment_id],
        f"attributes.status = 'FINISHED' and attributes.start_time < {own.info.start_time} "
        "and metrics.attribution_windows > 0",
        max_results=LOOKED_AT,
        order_by=["attributes.start_time DESC"],
    )
    for run in earlier:
        if _market(run) == _market(own) and (before := profile_of(mlflow, run.info.run_id)):
            return Drift.between(before, profile, f"the night {run.info.run_name}")
    return None


def _market(run: Run) -> str | None:
    market: str | None = run.data.tags.get("tickline.market")
    return market
