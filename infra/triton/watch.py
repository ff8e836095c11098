"""A check in the background: its caller never waits, and sees the newest result."""

import threading
from collections.abc import Callable

from model_code.errors import TicklineError


class Watch:
    """Repeats a check in a thread, once for each look at its result.

    Args:
        check: may take long; raises a `TicklineError` if something is wrong.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._result: str | None = None
        self._running: _Round | None = None

    def problem(self) -> str | None:
        """What was wrong in the last finished check; empty: nothing; None: none has finished.

        Begins the next check unless one is running.
        """
        if self._running is not None and not self._running.is_alive():
            self._result, self._running = self._running.found, None
        if self._running is None:
            self._running = _Round(self._check)
            self._running.start()
        return self._result

    def reset(self) -> None:
        """Forget every result, also that of a check which still runs."""
        self._result = self._running = None


class _Round(threading.Thread):
    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__(name="tickline-watch", daemon=True)
        self._once, self.found = check, ""

    def run(self) -> None:
        try:
            self._once()
        except TicklineError as error:
            self.found = f"{error.what}; {error.remedy}" if error.remedy else error.what
        except Exception as error:  # the next round tries again
            self.found = f"{type(error).__name__}: {error}"
