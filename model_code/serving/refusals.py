"""Submitted requests that are refused before they are sent.

Shapes: B batch, T = 64 steps, F = 16 features.
"""

import numpy as np

from model_code.errors import ServingError
from model_code.serving import wire

LONGEST_DEADLINE_S = 60.0
MOST_IN_FLIGHT = 256


def check(x_BTF: object, deadline_s: object) -> None:
    """Refuse bad windows and deadlines.

    Raises:
        ServingError: windows as `wire.check_windows`; a deadline that is not a number above 0 and
            up to 60 s.
    """
    if not (
        isinstance(deadline_s, int | float | np.floating) and 0 < deadline_s <= LONGEST_DEADLINE_S
    ):
        raise ServingError(
            f"the deadline is {deadline_s!r}",
            remedy=f"pass seconds, above 0 and up to {LONGEST_DEADLINE_S:g}",
        )
    wire.check_windows(x_BTF)


def too_many(most: int, url: str) -> ServingError:
    """The refusal of a request beyond the bound."""
    return ServingError(
        f"{most} submitted requests have no response yet",
        where=url,
        remedy="submit fewer, or check the server's load: tickline triton status",
    )


def closed(url: str) -> ServingError:
    """The refusal of a request after `close`."""
    return ServingError("the client is closed", where=url, remedy="submit before close")
