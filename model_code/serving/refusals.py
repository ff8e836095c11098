"""Requests that are refused before they are sent.

Shapes: B batch, T = 64 steps, F = 16 features.
"""

import math
import reprlib
from numbers import Real

from model_code.errors import ServingError
from model_code.serving import wire

LONGEST_DEADLINE_S = 60.0
MOST_IN_FLIGHT = 256


def check(x_BTF: object, deadline_s: object) -> float:
    """Refuse bad windows and deadlines; return the deadline in seconds.

    Raises:
        ServingError: windows as `wire.check_windows`; the deadline as `seconds`.
    """
    found = seconds(deadline_s)
    wire.check_windows(x_BTF)
    return found


def seconds(deadline_s: object) -> float:
    """A deadline in seconds.

    Raises:
        ServingError: it is not a number above 0 and up to 60 s.
    """
    try:
        found = float(deadline_s) if isinstance(deadline_s, Real) else math.nan
    except OverflowError:  # an integer beyond every float
        found = math.inf
    if 0 < found <= LONGEST_DEADLINE_S:
        return found
    try:
        shown = reprlib.repr(deadline_s)
    except ValueError:  # an integer of thousands of digits
        shown = f"a huge {type(deadline_s).__name__}"
    raise ServingError(
        f"the deadline is {shown}",
        remedy=f"pass seconds, above 0 and up to {LONGEST_DEADLINE_S:g}",
    )


def attempts(count: object) -> int:
    """How often a request is sent at most.

    Raises:
        ServingError: not an integer of 1 or more.
    """
    if isinstance(count, int) and not isinstance(count, bool) and count >= 1:
        return count
    raise ServingError(f"attempts are {count!r}", remedy="pass 1, for no second one, or more")


def too_many(most: int, url: str) -> ServingError:
    """The refusal of a request beyond the bound."""
    return ServingError(
        f"{most} submitted requests have no response yet",
        where=url,
        remedy="submit fewer, or check the server's load: tickline triton status",
    )


def closed(url: str) -> ServingError:
    """The refusal of a request after `close`."""
    return ServingError("the client is closed", where=url, remedy="open another one")


def forked(url: str) -> ServingError:
    """The refusal of a request in a fork of the process that opened a client."""
    return ServingError(
        "this process was forked from one that had opened a client of the model server",
        where=url,
        remedy='start processes by multiprocessing.get_context("spawn"), or fork before the first '
        "client is opened",
    )


def another_loop(url: str) -> ServingError:
    """The refusal of a request in another event loop than the client's first one."""
    return ServingError(
        "the client belongs to another event loop",
        where=url,
        remedy="open one client in each event loop, or use CallbackPredictor",
    )


def no_loop(url: str) -> ServingError:
    """The refusal of a request outside an event loop."""
    return ServingError(
        "no event loop is running in this thread",
        where=url,
        remedy="use CallbackPredictor, which has one of its own",
    )
