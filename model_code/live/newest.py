"""Decisions that were published before are left out: delivery is at least once."""

from model_code.live.messages import Decision


class Newest:
    """The newest decision of each instrument.

    A path decides in the order of (session, sequence), so that one that is not newer than the
    newest has been seen before.
    """

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int]] = {}
        self.repeated = 0
        """Decisions left out."""

    def add(self, one: Decision) -> bool:
        """Whether the decision is new; it counts as seen afterwards."""
        number = (one.session, one.sequence)
        if number <= self._newest.get(one.symbol, (-1, -1)):
            self.repeated += 1
            return False
        self._newest[one.symbol] = number
        return True
