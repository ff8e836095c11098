"""Logs to MLflow what became of the sampled live decisions, on the run that registered the version.

Every hour of the ticks is one step. An hour that was logged is not logged again.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from mlflow.exceptions import MlflowException

from infra.live.feedback.log_files import read
from infra.live.feedback.spec import LogSpec
from infra.live.feedback.worker import version_folder
from model_code.errors import ConfigError, TicklineError
from model_code.live.feedback.figures import Figures, figures
from model_code.live.feedback.labels import Labelled
from model_code.live.feedback.reference import LiveReference
from model_code.settings import MODEL_NAME, Settings
from tasks.runs import mlflow_runs
from tasks.runs.stored import model_of

HOUR_NS = 3_600_000_000_000
LATE_NS = 120_000_000_000  # rows of an hour are on disk so long after it
LOGGED_TAG = "live_logged_until"  # hours since the epoch
PREFIX = "live_"


class Logged(NamedTuple):
    """One hour of a group's decisions on one version."""

    group: str
    hour: int
    figures: Figures


def log_feedback(settings: Settings, now_ns: int | None = None) -> tuple[list[Logged], list[str]]:
    """Log the hours that are over and not logged yet.

    Args:
        settings: name the home, the repositories and MLflow.
        now_ns: ns since the epoch; None: the clock.

    Returns:
        What was logged, and why some was not.
    """
    ended = ((time.time_ns() if now_ns is None else now_ns) - LATE_NS) // HOUR_NS
    found, notes = list[Logged](), list[str]()
    for folder in sorted(settings.home.glob("live/*/feedback/log")):
        group = folder.parent.parent.name
        by_version: dict[int, list[Labelled]] = {}
        for one in unique(read(folder)):
            by_version.setdefault(one.sampled.decision.model_version, []).append(one)
        for version, rows in sorted(by_version.items()):
            try:
                found += _log_version(settings, group, version, rows, ended)
            except (TicklineError, MlflowException) as error:
                notes.append(f"version {version} of {group} is not judged: {error}")
    return found, notes


def unique(rows: Iterable[Labelled]) -> list[Labelled]:
    """Each decision once: after a crash some are made and logged again; a labelled one counts."""
    kept: dict[tuple[str, int, int], Labelled] = {}
    for one in rows:
        known = kept.get(one.sampled.key)
        if known is None or known.label < 0:
            kept[one.sampled.key] = one
    return list(kept.values())


def _log_version(
    settings: Settings, group: str, version: int, rows: list[Labelled], ended: int
) -> list[Logged]:
    """Log the hours of one version."""
    reference = LiveReference.load(version_folder(settings, version))
    mlflow = mlflow_runs.client(settings)
    known = mlflow.get_model_version(MODEL_NAME, str(version))
    if known.run_id is None:
        raise ConfigError(
            f"version {version} names no run to log to", remedy="register it by a nightly"
        )
    tag = f"{LOGGED_TAG}.{group}"
    first = int(known.tags.get(tag, 0))
    by_hour: dict[int, list[Labelled]] = {}
    for one in rows:
        hour = one.sampled.decision.local_ns // HOUR_NS
        if first <= hour < ended:
            by_hour.setdefault(hour, []).append(one)
    spec = LogSpec().judge.model_copy(update={"window_s": 3600.0})
    found = []
    for hour, kept in sorted(by_hour.items()):
        made = figures(kept, spec, reference)
        named = {f"{PREFIX}{name}": value for name, value in made.numbers.items()}
        model = {} if (logged := model_of(known)) is None else {"model_id": logged}
        mlflow_runs.log_metrics(mlflow, known.run_id, named, hour, **model)
        found.append(Logged(group, hour, made))
    if found:
        newest = found[-1].figures
        tags = {tag: str(found[-1].hour + 1)}
        if newest.auc is not None:
            tags["live_auc"] = f"{newest.auc:.4f}"
        worst = max(newest.psi, key=lambda name: newest.psi[name])
        tags["live_psi_worst"] = f"{worst} {newest.psi[worst]:.3f}"
        for key, value in tags.items():
            mlflow.set_model_version_tag(MODEL_NAME, str(version), key, value)
    return found
