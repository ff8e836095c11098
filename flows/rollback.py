"""Rollback: return to an earlier approved version without losing a request."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE

from infra.triton.daemon import live_server
from infra.triton.targets import of_policy
from model_code.repository.audit import account
from model_code.repository.policy import PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from model_code.storage.serving import refuse_elsewhere, require_here
from tasks.caching.stage import announced
from tasks.promotion.record import stop_recorded
from tasks.promotion.records import RolledBack
from tasks.promotion.rollback import choose_version, record_rollback, roll_back
from tasks.promotion.targets import behind_now
from tasks.runs.aliases import Aliases
from tasks.runs.lifecycle import logged
from tasks.runs.names import rename, start_name
from tasks.runs.page import say

P = ParamSpec("P")
R = TypeVar("R")


@flow(name="rollback", flow_run_name=start_name, description=__doc__, persist_result=False)
@logged
def rollback(to: int | None = None, by: str = "", reason: str = "") -> RolledBack:
    """Verify the old version's bytes, load it, check its golden requests, move aliases, record.

    Args:
        to: version; None for the one that served before.
        by: who does it.
        reason: why.
    """
    settings, began = Settings().resolved(), time.monotonic()
    refuse_elsewhere(settings)
    policy = PolicyFile.find(settings.serving_repository)
    if policy is not None:
        settings = of_policy(settings, policy)
    Aliases(settings).require_answer()
    live_server(settings)
    require_here(settings)
    repository = ServingRepository(settings.serving_repository)
    with repository.exclusive():
        repository.fence.require_level()
        epoch = repository.fence.newest()
        version, champion, previous = _step(choose_version)(settings, to)
        rename(f"rollback to v{version}")
        say(f"rollback from version {champion} to version {version}")
        with stop_recorded(settings, version):
            _step(roll_back)(settings, version, previous, epoch)
            seconds = time.monotonic() - began
            _step(record_rollback)(settings, version, champion, by or account(), reason)
    return RolledBack(
        version=version,
        from_version=champion,
        previous=previous,
        seconds=seconds,
        behind=behind_now(settings),
    )


def _step(function: Callable[P, R]) -> Task[P, R]:
    """A step as a task, so that Prefect and `tickline why` show how far a rollback came."""
    decorate = task(cache_policy=NO_CACHE, **announced(function.__name__.replace("_", " ")))
    return decorate(function)
