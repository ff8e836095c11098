"""`--refresh`: ignore results from before the run started, reuse the run's own.

A rerun of a refreshing run resumes where it stopped. It never uses an older result for a stage that
it had not reached.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.context import FlowRunContext

_STARTED: ContextVar[float | None] = ContextVar("started", default=None)


@contextmanager
def refreshing(wanted: bool) -> Iterator[None]:
    """Ignore results older than this flow run, if wanted."""
    context = FlowRunContext.get()
    created = context.flow_run.created if context and context.flow_run else None
    started = created.timestamp() if created else time.time()
    token = _STARTED.set(started if wanted else None)
    try:
        yield
    finally:
        _STARTED.reset(token)


def is_refreshing() -> bool:
    """Whether this run ignores what earlier runs found."""
    return _STARTED.get() is not None


def is_stale(path: Path) -> bool:
    """Whether the file exists and is too old for a refreshing run."""
    started = _STARTED.get()
    return started is not None and path.exists() and path.stat().st_mtime < started
