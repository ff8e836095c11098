"""A check in the background: its caller never waits, and sees the newest result."""

from collections.abc import Callable
from concurrent.futures import Future

from infra.background import in_background
from model_code.errors import TicklineError


class Watch:
    """Repeats a check in a thread, once for each look at its result.

    Args:
        check: may take long; raises a `TicklineError` if something is wrong.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._result: str | None = None
        self._running: Future[str] | None = None

    def problem(self) -> str | None:
        """What was wrong in the last finished check; empty: nothing; None: none has finished.

        Begins the next check unless one is running.
        """
        if self._running is not None and self._running.done():
            self._result, self._running = self._running.result(), None
        if self._running is None:
            self._running = in_background(self._once)
        return self._result

    def reset(self) -> None:
        """Forget every result, also that of a check which still runs."""
        self._result = self._running = None

    def _once(self) -> str:
        try:
            self._check()
        except TicklineError as error:
            return f"{error.what}; {error.remedy}" if error.remedy else error.what
        except Exception as error:  # the next round tries again
            return f"{type(error).__name__}: {error}"
        return ""
