"""A demo broker for all tests, a real Redis server for each."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import demo_broker
from tests.support.redis import RedisServer
from tests.support.triton import TritonProcess


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker in memory, for all tests of the session."""
    with demo_broker(tmp_path_factory.mktemp("broker")) as bootstrap:
        yield bootstrap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    found = RedisServer(tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def triton(tmp_path: Path, triton_home: Path) -> Iterator[TritonProcess]:
    """A Triton server of its own in which version 1 serves."""
    assert triton_home.is_dir()
    found = TritonProcess(tmp_path / "home")
    try:
        found.start()
        found.promote(1, threshold=0.25)
        yield found
    finally:
        found.kill()
