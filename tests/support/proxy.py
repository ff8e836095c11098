"""A TCP proxy that can be cut: a server that is away, without stopping one."""

import asyncio
import contextlib
from typing import Self

from infra.servers import HOST, free_port


class Proxy:
    """Passes bytes on to a server while it listens.

    Args:
        to: host:port.
    """

    def __init__(self, to: str) -> None:
        self._host, _, self._port = to.rpartition(":")
        self._listen_port = free_port()
        self.url = f"{HOST}:{self._listen_port}"
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self._listen_port)

    async def cut(self) -> None:
        """Refuse new connections and drop those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
        self.connections += 1
        both = {writer, there_writer}
        self._writers |= both
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(_pipe(reader, there_writer), _pipe(there_reader, writer))
        self._writers -= both


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()
