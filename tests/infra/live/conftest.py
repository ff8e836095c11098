"""Fixtures of the live service."""

from collections.abc import Iterator

import pytest

from tests.support.broker import demo_broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker in memory, for all tests of the session."""
    with demo_broker(tmp_path_factory.mktemp("broker")) as bootstrap:
        yield bootstrap
