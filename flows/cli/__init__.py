"""The `tickline` command."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from infra.home.user import missing

try:
    _found = missing(os.environ)
except ValidationError as _error:
    sys.exit("tickline failed: " + _error.errors()[0]["msg"].removeprefix("Value error, "))
os.environ.update(_found)  # before Prefect is imported, which fails without a home folder
with suppress(OSError):  # Prefect makes no parents; the command says what is wrong with its home
    Path(_found.get("PREFECT_HOME", ".")).mkdir(parents=True, exist_ok=True)
