"""What came out: decisions read back from their topic, checked for order and repetition."""

from model_code.live.messages import Decision


class ReadBack:
    """Counts decisions, of each instrument in the order in which they are read.

    Attributes:
        decided: different decisions.
        duplicated: decisions read before.
        reordered: decisions behind a later one of their instrument, not read before.
    """

    def __init__(self) -> None:
        self.decided = self.duplicated = self.reordered = 0
        self._newest: dict[str, tuple[int, int]] = {}
        self._seen: dict[tuple[str, int], set[int]] = {}

    def take(self, one: Decision, _: int = 0) -> None:
        """Count a decision; the time at which it was read does not matter."""
        number = (one.session, one.sequence)
        seen = self._seen.setdefault((one.symbol, one.session), set())
        if one.sequence in seen:
            self.duplicated += 1
            return
        seen.add(one.sequence)
        self.decided += 1
        if number < self._newest.get(one.symbol, number):
            self.reordered += 1
        else:
            self._newest[one.symbol] = number

    def __contains__(self, key: tuple[str, int, int]) -> bool:
        """Whether a decision on this symbol, session and sequence was read."""
        symbol, session, sequence = key
        return sequence in self._seen.get((symbol, session), ())
