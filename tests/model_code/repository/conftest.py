from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import disk as builders_disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of 1 MB."""
    with builders_disk.small_disk(tmp_path, megabytes=1) as mount:
        yield mount
