"""The cluster on which stages of instrument-days run, as text."""

import re
from typing import Annotated

from pydantic import AfterValidator

PROCESSES, DASK = "processes", "dask"
_LOCAL = re.compile(rf"(?:{PROCESSES}|{DASK}):([1-9]\d{{0,3}})")
_ADDRESS = re.compile(r"(?:tcp|tls)://[^\s/:]+:\d{1,5}")


def check_cluster(text: str) -> str:
    """The text, if it names a cluster.

    Raises:
        ValueError: it does not; the message says what would.
    """
    if _LOCAL.fullmatch(text) or _ADDRESS.fullmatch(text):
        return text
    raise ValueError(
        f"{text!r} is no cluster: use {PROCESSES}:N, {DASK}:N (N workers on this machine), or the "
        "address of a Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT"
    )


Cluster = Annotated[str, AfterValidator(check_cluster)]
OptionalCluster = Annotated[str | None, AfterValidator(lambda text: text and check_cluster(text))]
