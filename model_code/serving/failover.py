"""Which of several servers a request goes to: the first of the list that answers.

A server that is unreachable is left out until it answers a probe. A server that lacks a version is
left out for that version, for a while. The wait grows from `FIRST_S` to `LONGEST_S` while a server
keeps failing. The time is passed in.
"""

FIRST_S, LONGEST_S = 0.1, 5.0
MOST_VERSIONS = 64  # remembered as absent


class Failover:
    """The state of `count` servers, by their place in the list.

    Attributes:
        failovers: requests that a server failed and another got.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._down: dict[int, float] = {}  # server -> wait until its next probe, s
        self._last: dict[int, tuple[float, float]] = {}  # server -> when it came back, its wait
        self._absent: dict[tuple[int, int | None], tuple[float, float]] = {}  # -> until, wait
        self.failovers = 0

    def order(self, version: int | None, now: float) -> list[int]:
        """Servers to ask, in turn. Those left out come last: with no other, they are asked."""
        if not self._down and not self._absent:
            return list(range(self._count))
        out = [one for one in range(self._count) if self._is_out(one, version, now)]
        return [one for one in range(self._count) if one not in out] + out

    def unreachable(self, server: int, now: float) -> bool:
        """Leave a server out until it answers a probe; whether it was not left out before."""
        if server in self._down:
            return False
        back, wait = self._last.get(server, (float("-inf"), FIRST_S))
        # one that fails again soon after it came back is probed less often
        self._down[server] = FIRST_S if now - back > LONGEST_S else min(2 * wait, LONGEST_S)
        return True

    def wait(self, server: int) -> float:
        """Seconds until the server's next probe."""
        return self._down[server]

    def probed(self, server: int, now: float, *, answers: bool) -> None:
        """Take a probe's result: the server is asked again, or probed later."""
        wait = self._down[server]
        if answers:
            del self._down[server]
            self._last[server] = now, wait
        else:
            self._down[server] = min(2 * wait, LONGEST_S)

    def absent(self, server: int, version: int | None, now: float) -> None:
        """Leave a server out for a version that it does not have, or that does not work there."""
        if len(self._absent) >= MOST_VERSIONS:
            self._absent.clear()
        until, wait = self._absent.get((server, version), (float("-inf"), 0.0))
        if now >= until:
            wait = min(2 * wait, LONGEST_S) if wait else FIRST_S
            self._absent[server, version] = now + wait, wait

    def answered(self, server: int, version: int | None) -> None:
        """Note that a server has a version."""
        if self._absent:
            self._absent.pop((server, version), None)

    def _is_out(self, server: int, version: int | None, now: float) -> bool:
        until, _ = self._absent.get((server, version), (float("-inf"), 0.0))
        return server in self._down or now < until
