"""Decisions delivered twice are left out."""

from model_code.live.messages import Decision, Latency
from model_code.live.newest import Newest


def decision(symbol: str, session: int, sequence: int) -> Decision:
    return Decision(
        symbol=symbol, sequence=sequence, session=session, exchange_ns=None, local_ns=1,
        model_version=1, probability=0.5, threshold=0.5, decision=True, side=None,
        latency=Latency(decode=0, features=0, queue=0, inference=0, publish=0),
    )  # fmt: skip


def test_only_what_is_newer_counts_of_each_instrument() -> None:
    newest = Newest()
    numbers = [("A", 0, 5), ("A", 0, 7), ("A", 0, 5), ("A", 0, 7), ("A", 0, 8), ("B", 0, 1)]
    assert [newest.add(decision(*one)) for one in numbers] == [True, True, False, False, True, True]
    assert newest.add(decision("A", 1, 1))
    assert not newest.add(decision("A", 0, 9))
    assert newest.repeated == 3
