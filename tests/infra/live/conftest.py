"""A real Redis server for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    found = RedisServer(tmp_path)
    found.start()
    yield found
    found.kill()
