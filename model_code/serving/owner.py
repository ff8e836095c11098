"""Who may use a client: the process that opened it and, for an asynchronous one, its event loop.

A forked process inherits the parent's connections without gRPC's threads: a request there may
never end, and what it writes or closes is the parent's. So clients refuse there, and leave what
they inherited as it is.
"""

import asyncio
import os

from model_code.serving import refusals


class Owner:
    """The owner of one client.

    Args:
        url: of the client, for messages.

    Attributes:
        closed: whether the client was closed.

    Raises:
        ServingError: this process was forked from one that had opened a client.
    """

    def __init__(self, url: str) -> None:
        _USE.use(url)
        self._url, self._process = url, os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a fork of the owner."""
        return os.getpid() != self._process

    @property
    def has_ended(self) -> bool:
        """Whether the event loop of the owner has been closed."""
        return self._loop is not None and self._loop.is_closed()

    def require(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Refuse another process, another event loop and what comes after `close`.

        Args:
            loop: that is running, for an asynchronous client; the first one is the owner's.

        Raises:
            ServingError: it is refused.
        """
        if self.is_elsewhere:
            raise refusals.forked(self._url)
        if self.closed:
            raise refusals.closed(self._url)
        if loop is not None:
            self.require_loop(loop)

    def require_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse another event loop; the first one is the owner's.

        Raises:
            ServingError: another one is.
        """
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise refusals.another_loop(self._url)


class _Use:
    """Whether this process, or the one it was forked from, has used gRPC."""

    def __init__(self) -> None:
        self._here = self._inherited = False
        os.register_at_fork(after_in_child=self._forked)

    def use(self, url: str) -> None:
        if self._inherited:
            raise refusals.forked(url)
        self._here = True

    def _forked(self) -> None:
        self._inherited = self._inherited or self._here


_USE = _Use()
