"""Positions follow the confirmations."""

from infra.live.kafka.clients import Partition
from infra.live.positions import Positions, Round
from infra.live.snapshots import Saved

A, B = Partition("ticks", 0), Partition("ticks", 1)


def saved(partition: Partition, offset: int) -> Saved:
    return Saved(partition.topic, partition.number, offset, {})


def test_a_round_is_done_when_it_and_all_before_it_are_confirmed() -> None:
    positions = Positions()
    first, second = Round({A: 5, B: 2}, 2), Round({A: 9}, 1, [saved(A, 9)])
    for one in (Round({A: 3}, 0), first, second):
        positions.add(one)
    second.confirm()
    assert positions.done() == ({A: 3}, [])
    first.confirm()
    assert positions.done() == ({}, [])
    first.confirm()
    assert positions.done() == ({A: 9, B: 2}, [saved(A, 9)])
    assert len(positions) == 0


def test_of_two_snapshots_the_newer_one_is_written() -> None:
    positions = Positions()
    positions.add(Round({A: 3}, 0, [saved(A, 3)]))
    positions.add(Round({A: 4}, 0, [saved(A, 4), saved(B, 7)]))
    assert positions.done()[1] == [saved(A, 4), saved(B, 7)]


def test_partitions_of_others_are_not_stored() -> None:
    positions = Positions()
    one = Round({A: 3, B: 4}, 1, [saved(A, 3), saved(B, 4)])
    positions.add(one)
    assert positions.drop([A]) == 1
    one.confirm()
    assert positions.done() == ({B: 4}, [saved(B, 4)])
