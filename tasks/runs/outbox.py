"""Outbox of promotions: that a passed version wants one stays in the registry until it is opened.

The event `tickline.gate.passed` starts a promotion at once, and is lost if Prefect's server is down
in that second or the trigger is disabled. So the night first sets the version's tag `promotion` to
`wanted`; opening a promotion sets it to `opened`. What is still wanted, the flow `promotions-due`
starts. A version that no longer needs a promotion is closed: the tag says why.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.staged import fetch_all_staged
from tasks.promotion.promotion_runs import runs_of
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import OPENED, PROMOTION_TAG, WANTED

DEPLOYMENT = "promote/promote"
BY_NIGHT = "nightly"  # who started a promotion that nobody did by hand
ATTEMPTS = 3


@dataclass(frozen=True)
class Due:
    """What the outbox says.

    Attributes:
        start: version whose promotion is still to be opened; None if there is none.
        closed: versions that need no promotion any more, each with the reason.
    """

    start: int | None
    closed: Mapping[int, str]


def due(tags: Mapping[int, str], serving: int | None) -> Due:
    """Choose the version to start: the newest wanted one, if nothing newer passed or serves.

    Args:
        tags: by version its tag `promotion`; versions without one are left out.
        serving: the champion.
    """
    newest, closed = max(tags, default=0), {}
    for version in (one for one, tag in tags.items() if tag == WANTED):
        if version == serving:
            closed[version] = "it serves"
        elif serving is not None and version < serving:
            closed[version] = f"closed: version {serving}, which is newer, serves"
        elif version < newest:
            closed[version] = f"closed: version {newest} passed after it"
    start = newest if tags.get(newest) == WANTED and newest not in closed else None
    return Due(start=start, closed=closed)


def start_due(settings: Settings, obstacles: Collection[str] = ()) -> list[str]:
    """Start the promotion that is still wanted, unless one was started; return what was done.

    Args:
        settings: of the home of the serving repository.
        obstacles: why nothing can be promoted now; nothing is started then.
    """
    client = mlflow_runs.client(settings)
    versions = {
        int(one.version): one
        for one in client.search_model_versions(f"name = '{MODEL_NAME}'")
        if PROMOTION_TAG in one.tags
    }
    champion = ServingRepository(settings.serving_repository).route().champion
    tags = {number: one.tags[PROMOTION_TAG] for number, one in versions.items()}
    found = due(tags, None if champion is None else champion.version)
    done = []
    for version, why in found.closed.items():
        client.set_model_version_tag(MODEL_NAME, str(version), PROMOTION_TAG, why)
        done.append(f"version {version}: {why}")
    if found.start is None:
        return done
    version, registered = found.start, versions[found.start]
    waits = [*obstacles, *_not_ready(settings, version)]
    if waits:
        return [*done, *(f"version {version} waits for its promotion: {why}" for why in waits)]
    at = dt.datetime.fromtimestamp(registered.creation_timestamp / 1000, dt.UTC)
    # an earlier registry on this server may have had the same number
    runs = [run for run in runs_of(version) if run.created is not None and run.created >= at]
    if any(run.state is None or not run.state.is_final() for run in runs):
        return done
    if len(runs) >= ATTEMPTS:
        why = f"closed: {len(runs)} promotions ended before they were opened: {_message(runs[0])}"
        client.set_model_version_tag(MODEL_NAME, str(version), PROMOTION_TAG, why)
        again = f"by hand: tickline promote --version {version}"
        return [*done, f"version {version}: {why}; {again}"]
    run = _start(version, f"due-{registered.run_id}-{version}-{len(runs)}")
    return [*done, f"version {version}: promotion {run.name} started"]


def is_opened(settings: Settings, version: int) -> bool:
    """Whether a promotion of the version was opened, or closed as not needed."""
    found = mlflow_runs.client(settings).get_model_version(MODEL_NAME, str(version))
    return found.tags.get(PROMOTION_TAG, WANTED) != WANTED


def mark_opened(settings: Settings, version: int) -> None:
    """Note that the version's promotion is open."""
    client = mlflow_runs.client(settings)
    client.set_model_version_tag(MODEL_NAME, str(version), PROMOTION_TAG, OPENED)


def _not_ready(settings: Settings, version: int) -> list[str]:
    if version not in fetch_all_staged(settings):
        return [f"it is not staged in {settings.staging_repository}"]
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return [f"{DEPLOYMENT} is not deployed: tickline up"]
    if deployment.paused:
        return [f"the deployment {DEPLOYMENT} is paused; resume it in Prefect's page, or by hand: "
                f"tickline promote --version {version}"]  # fmt: skip
    return []


def _start(version: int, key: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        return client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"version": version, "started_by": BY_NIGHT},
            idempotency_key=key,
        )


def _message(run: FlowRun) -> str:
    text = run.state.message if run.state is not None else ""
    return (text or "no message").splitlines()[0][:200]
