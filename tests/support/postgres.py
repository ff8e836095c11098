"""A real Postgres of the system's packages, on a free loopback port."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows.demos import postgres as demo
from model_code.errors import ConfigError


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """Yield `USER:PASSWORD@host:port` of a server; the test is skipped, by name, without."""
    try:
        demo.binaries()
    except ConfigError as error:
        pytest.skip(str(error))
    with demo.postgres(databases) as address:
        yield address
