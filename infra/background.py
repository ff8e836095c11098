"""Calls whose caller never waits: each runs in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_background(call: Callable[[], T]) -> "Future[T]":
    """Begin a call; its result or exception is in the future once that is done.

    The thread does not keep the process from exiting, even if the call hangs.
    """
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(call())
        except BaseException as error:  # the caller decides what it means
            found.set_exception(error)

    threading.Thread(target=run, name="tickline-background", daemon=True).start()
    return found
