"""How decisions are kept in Redis, where it is, why it failed, and what was written."""

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlparse

from pydantic import Field
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from infra.servers import ServerError
from model_code.errors import ConfigError
from model_code.settings import Spec


class RedisSpec(Spec):
    """How decisions are kept in Redis.

    Attributes:
        prefix: of the keys.
        expire_ms: a key lives this long after its tick's local stamp; a few tick intervals.
        timeout_s: longest wait of one write for Redis, connecting included.
        reconnect_s: wait after the first failed reconnection; it doubles up to forty times this.
    """

    KIND: Literal["redis-state"] = "redis-state"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "tickline"
    expire_ms: Annotated[int, Field(ge=10, le=60_000)] = 500
    timeout_s: Annotated[float, Field(ge=0.001, le=5.0)] = 0.2
    reconnect_s: Annotated[float, Field(ge=0.001, le=5.0)] = 0.05


@dataclass
class Counts:
    """Decisions and quotes by where they ended; each is in one column or waits.

    Attributes:
        taken: passed to `write`.
        written: Redis has, or had, them.
        duplicate: their number was written before.
        late: behind a later number.
        stale: past the deadline before they could be written.
        replaced: by a newer one before they could be written.
        refused: unusable, or refused by Redis; `RedisState.refusal` says why.
        stopped: not written when `close` was called.
        failures: attempts to connect or write that failed.
        reconnections: after a failure.
    """

    taken: int = 0
    written: int = 0
    duplicate: int = 0
    late: int = 0
    stale: int = 0
    replaced: int = 0
    refused: int = 0
    stopped: int = 0
    failures: int = 0
    reconnections: int = 0

    @property
    def ended(self) -> int:
        """Decisions and quotes in a column."""
        kept = self.written + self.duplicate + self.late
        return kept + self.stale + self.replaced + self.refused + self.stopped


def server_address(url: str) -> str:
    """Host and port of a URL, or its socket; without user and password.

    Raises:
        ConfigError: the URL cannot be read.
    """
    try:
        parts = urlparse(url)
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not database.isdecimal():
            raise ValueError("the database is not a number")
        pool = Redis.from_url(url).connection_pool
        pool.make_connection()  # type: ignore[no-untyped-call]  # refuses unknown options
    except (ValueError, TypeError):  # its text may contain a part of the password
        raise ConfigError(
            "the URL of Redis cannot be read",
            remedy="write redis://HOST:PORT/DATABASE, or rediss:// for TLS; percent-encode "
            "special characters of a password",
        ) from None
    found = pool.connection_kwargs
    host, port = found.get("host", "localhost"), found.get("port", 6379)
    return str(found.get("path") or f"{host}:{port}")


def failure(error: BaseException, address: str) -> ServerError:
    """Why Redis cannot be used, and what to do."""
    if isinstance(error, AuthenticationError):
        what, remedy = f"Redis refuses the user or password: {error}", "set the right password"
    else:
        why = str(error) or "no response in time"
        what, remedy = f"Redis cannot be used: {why}", "is it running? redis-cli ping"
    return ServerError(what, where=address, remedy=remedy)
