"""A WebSocket connection whose frames carry the time at which they were read from the socket.

A frame may wait behind a slow receiver. The time of its turn says nothing about the market.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, cast

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event

MOST_QUEUED = 4096  # frames; above it the socket is not read, so that they would get a later time


class StampedConnection(ClientConnection):
    """A connection to iterate with `frames`, and nothing else.

    Args:
        clock: ns since the epoch.
        arguments, options: of the connection.

    Attributes:
        read_at: when the socket was last read, monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], int], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock
        self._read_ns = 0
        self._received_ns: deque[int] = deque()
        self.read_at = 0.0

    @property
    def waiting(self) -> int:
        """Frames that were read and not taken yet."""
        return len(self._received_ns)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what it read from the socket."""
        self._read_ns, self.read_at = self._clock(), time.monotonic()
        super().data_received(data)

    def process_event(self, event: Event) -> None:
        """Called with each frame of what was read."""
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES and event.fin:
            self._received_ns.append(self._read_ns)  # one for each whole message

    async def frames(self) -> AsyncIterator[tuple[str | bytes, int]]:
        """Each message, and when its last byte was read, in ns since the epoch.

        Raises:
            ConnectionClosedError: the connection did not end in order.
        """
        async for message in self:
            yield message, self._received_ns.popleft()


def stamped(clock: Callable[[], int]) -> type[StampedConnection]:
    """What `websockets.connect` takes as `create_connection`."""
    return cast(type[StampedConnection], partial(StampedConnection, clock))
