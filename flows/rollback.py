"""Rollback: an earlier approved version serves again, without a lost request."""

import time

from prefect import flow

from flows.promote import live_server, reported
from model_code.repository.audit import account
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from tasks import swapping
from tasks.names import Names
from tasks.swapping import RolledBack


@flow(name="rollback", description=__doc__, persist_result=False)
def rollback(to: int | None = None, by: str = "", reason: str = "") -> RolledBack:
    """Verify the old version's bytes, load it, ask its golden requests, move the names, record.

    Args:
        to: version; None for the one that served before.
        by: who does it.
        reason: why.
    """
    settings, began = Settings().resolved(), time.monotonic()
    names = Names(settings)
    names.require_answer()
    url = live_server(settings)
    with ServingRepository(settings.serving_repository).exclusive():
        version, champion, previous = swapping.choose_version(settings, to)
        with reported(settings, version):
            swapping.roll_back(settings, url, version, previous)
            seconds = time.monotonic() - began
            swapping.record_rollback(settings, version, champion, by or account(), reason)
    return RolledBack(version=version, from_version=champion, previous=previous, seconds=seconds)
