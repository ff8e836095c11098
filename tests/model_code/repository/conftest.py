from collections.abc import Iterator
from pathlib import Path

import builders_disk
import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    with builders_disk.small_disk(tmp_path, megabytes=1) as mount:
        yield mount
