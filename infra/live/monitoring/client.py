"""Reads the page of a running service: once, or event by event."""

from collections.abc import AsyncIterator

import httpx
import msgspec

from infra.live.monitoring.document import DECODER, Document
from model_code.errors import TicklineError
from model_code.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8750"
TIMEOUT_S = 5.0
DATA = "data: "


class ServiceAwayError(TicklineError):
    """The page of a service cannot be read."""


class Client:
    """A reader of one page.

    Args:
        url: of the page.
        settings: name and password, if the page needs them.
        transport: of the tests; None: the network.
    """

    def __init__(
        self, url: str, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._transport = transport
        password = settings.auth_password
        self._auth = (
            None
            if password is None
            else httpx.BasicAuth(settings.auth_username, password.get_secret_value())
        )

    async def once(self) -> Document:
        """The service's state now.

        Raises:
            ServiceAwayError: it does not respond, refuses, or is no such page.
        """
        try:
            async with self._connection() as connection:
                found = await connection.get("/api/state")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from error
        self._check(found)
        return self._read(found.content)

    async def documents(self) -> AsyncIterator[Document]:
        """The service's state twice a second.

        Raises:
            ServiceAwayError: as in `once`, or the service stopped.
        """
        try:
            async with (
                self._connection() as connection,
                connection.stream("GET", "/api/events") as found,
            ):
                self._check(found)
                async for line in found.aiter_lines():
                    if line.startswith(DATA):
                        yield self._read(line[len(DATA) :].encode())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(error) from error
        raise self._away(EOFError("the service closed the connection"))

    def _connection(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, auth=self._auth, timeout=TIMEOUT_S, transport=self._transport
        )

    def _check(self, found: httpx.Response) -> None:
        if found.status_code == httpx.codes.UNAUTHORIZED:
            raise ServiceAwayError(
                "the page needs a password",
                where=self.url,
                remedy="set TICKLINE_AUTH_PASSWORD, and TICKLINE_AUTH_USERNAME if it is not admin",
            )
        if found.status_code != httpx.codes.OK:
            raise self._away(RuntimeError(f"HTTP status {found.status_code}"))

    def _read(self, content: bytes) -> Document:
        try:
            return DECODER.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServiceAwayError(
                f"not a page of this version of Tickline: {error}",
                where=self.url,
                remedy="check --url and the service's version",
            ) from error

    def _away(self, error: Exception) -> ServiceAwayError:
        return ServiceAwayError(
            f"no live service responds: {error or type(error).__name__}",
            where=self.url,
            remedy="start it: tickline live --page PORT; another address: --url",
        )
