"""Who or what started a flow run: for the four-eyes rule and the record of a night."""

import os

from prefect.context import FlowRunContext
from prefect.runtime import deployment

from model_code.repository.audit import account

TAG = "tickline.started_by"  # of the night's MLflow run
BETWEEN = ", "  # two names: a run that another person resumed


def started_by() -> str:
    """Who or what started the current flow run.

    The account for a run in this process. A worker's run was started by a schedule, an automation
    or in Prefect, which knows no persons: a colon in the answer cannot be in a reviewer's name.
    """
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or not by_worker():
        return account()
    name = str(deployment.name or run.deployment_id)
    if run.auto_scheduled:
        return f"schedule: {name}"
    made = run.created_by
    if made is not None and made.type:
        return f"{made.type.lower()}: {made.display_value or name}"
    return f"Prefect: {name}"


def by_worker() -> bool:
    """Whether a worker started this process."""
    return "PREFECT__FLOW_RUN_ID" in os.environ


def with_name(names: str, name: str) -> str:
    """The names of a run's tag, and one more unless it is there."""
    known = [one for one in names.split(BETWEEN) if one]
    return BETWEEN.join([*known, *({name} - set(known))])
