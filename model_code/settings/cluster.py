"""The cluster on which stages of instrument-days run, as text."""

import re
from typing import Annotated

from pydantic import AfterValidator

PROCESSES, DASK, RAY = "processes", "dask", "ray"
_LOCAL = re.compile(rf"(?:{PROCESSES}|{DASK}|{RAY}):([1-9]\d{{0,3}})")
_ADDRESS = re.compile(r"(?:tcp|tls|ray)://[^\s/:]+:\d{1,5}")


def check_cluster(text: str) -> str:
    """The text, if it names a cluster.

    Raises:
        ValueError: it does not; the message says what would.
    """
    if _LOCAL.fullmatch(text) or _ADDRESS.fullmatch(text):
        return text
    raise ValueError(
        f"{text!r} is no cluster: use {PROCESSES}:N, {DASK}:N or {RAY}:N (N workers on this "
        "machine), or an address: tcp://HOST:PORT or tls://HOST:PORT of a Dask scheduler, "
        "ray://HOST:PORT of Ray's client server"
    )


def local_workers(cluster: str) -> int | None:
    """How many workers it starts on this machine; None: it is an address."""
    local = _LOCAL.fullmatch(cluster)
    return int(local[1]) if local else None


Cluster = Annotated[str, AfterValidator(check_cluster)]
OptionalCluster = Annotated[str | None, AfterValidator(lambda text: text and check_cluster(text))]
