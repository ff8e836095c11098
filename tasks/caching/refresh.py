"""`--refresh`: what was made before the run began does not count, what it made itself does.

So a rerun of a refreshing run goes on where it was cut short, and no older result stands in for a
stage that it had not come to.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.context import FlowRunContext

_BEGUN: ContextVar[float | None] = ContextVar("begun", default=None)


@contextmanager
def refreshing(wanted: bool) -> Iterator[None]:
    """Take nothing that is older than this flow run, if wanted."""
    context = FlowRunContext.get()
    created = context.flow_run.created if context and context.flow_run else None
    begun = created.timestamp() if created else time.time()
    token = _BEGUN.set(begun if wanted else None)
    try:
        yield
    finally:
        _BEGUN.reset(token)


def is_stale(path: Path) -> bool:
    """Whether the file is there and too old for a run that refreshes."""
    begun = _BEGUN.get()
    return begun is not None and path.exists() and path.stat().st_mtime < begun
