"""A process that opens a client, forks and asks on: `-m tests.support.forked KIND URL ROUTE`.

It prints as JSON what the fork was told, how the fork ended and how many of the parent's later
requests were answered.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from model_code.errors import ServingError
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.callback import CallbackPredictor
from model_code.serving.client import TritonClient
from model_code.serving.routed import RoutedClient
from model_code.serving.wire import Answer

ONE = np.ones((1, 64, 16), np.float32)
REQUESTS = 20
CHILD_S = 30.0
Act = Callable[[], object]


def attempt(act: Act) -> str:
    """What an act was told: `answered`, or the first line of the refusal."""
    try:
        act()
    except ServingError as error:
        return error.what
    return "answered"


def forked(use: Act, open_another: Act, close: Act) -> dict[str, object]:
    """Fork; the child uses, opens, closes, and ends as a script does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told = [attempt(use), attempt(open_another), attempt(close)]
        os.write(writer, json.dumps(told).encode())
        sys.exit(0)
    os.close(writer)
    end = time.monotonic() + CHILD_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"told": None, "status": "hangs"}
        time.sleep(0.01)
    return {"told": json.loads(os.read(reader, 1 << 16) or b"null"), "status": ended[1]}


def count(ask: Act) -> int:
    return sum(attempt(ask) == "answered" for _ in range(REQUESTS))


def sync(url: str) -> dict[str, object]:
    with TritonClient(url) as client:
        ask = lambda: client.predict(ONE)  # noqa: E731
        ask()
        found = forked(ask, lambda: TritonClient(url), client.close)
        return found | {"answered": count(ask)}


def loop(url: str, route: Path | None = None) -> dict[str, object]:
    """The fork has the parent's event loop, stopped, and may run it."""
    with asyncio.Runner() as runner:

        async def opened() -> AsyncTritonClient | RoutedClient:
            return AsyncTritonClient(url) if route is None else RoutedClient(url, route)

        client = runner.run(opened())

        def ask() -> object:
            return runner.run(client.ask(ONE))

        def close() -> None:
            runner.run(client.__aexit__())

        ask()
        found = forked(ask, lambda: runner.run(opened()), close) | {"answered": count(ask)}
        close()
        return found


def callback(url: str) -> dict[str, object]:
    with CallbackPredictor(url) as predictor:

        def ask() -> object:
            outcomes: SimpleQueue[Answer | ServingError] = SimpleQueue()
            predictor.submit(ONE, outcomes.put)
            found = outcomes.get(timeout=CHILD_S)
            if isinstance(found, ServingError):
                raise found
            return found

        ask()
        found = forked(ask, lambda: CallbackPredictor(url), predictor.close)
        return found | {"answered": count(ask)}


KINDS: dict[str, Callable[[str, Path], dict[str, object]]] = {
    "TritonClient": lambda url, _: sync(url),
    "AsyncTritonClient": lambda url, _: loop(url),
    "RoutedClient": loop,
    "CallbackPredictor": lambda url, _: callback(url),
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(KINDS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
