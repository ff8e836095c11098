"""Instruments that look at each other, directly or through others: one group, one key, one order.

All messages of a group carry its key, so that a broker keeps them in one partition and in order.
"""

from collections.abc import Iterable, Mapping


def groups(
    leaders: Mapping[str, tuple[str, ...]], symbols: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """The groups of these instruments, with the leaders that they look at.

    Args:
        leaders: whom each instrument looks at, from the model version's features.
        symbols: instruments that decide.

    Returns:
        The instruments of each group, sorted, by the group's key. The key depends on the leaders
        alone: whoever plays or reads a part of the instruments finds the same one.
    """
    key: dict[str, str] = {}
    for name, others in leaders.items():
        joined = {key.get(one, one) for one in (name, *others)}
        first = min(joined)
        key |= dict.fromkeys((name, *others), first)
        key |= {one: first for one, old in key.items() if old in joined}
    wanted = set(symbols)
    while more := {one for name in wanted for one in leaders.get(name, ())} - wanted:
        wanted |= more
    found: dict[str, list[str]] = {}
    for name in sorted(wanted):
        found.setdefault(key.get(name, name), []).append(name)
    return {first: tuple(names) for first, names in found.items()}
