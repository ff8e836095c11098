"""Who leads whom: found where it is planted, and nowhere else."""

import numpy as np
import pytest

from model_code.features.leaders import by_name, suggest
from model_code.features.venues import Quotes

MS = 1_000_000


def market(delays_ms: dict[str, int], seed: int = 0) -> dict[str, Quotes]:
    """One random walk, quoted by each instrument with its own delay and its own small noise."""
    rng = np.random.default_rng(seed)
    walk = 1000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], 40_000))  # one step each 10 ms
    found = {}
    for name, delay in delays_ms.items():
        time_N = np.sort(rng.integers(5_000, 390_000, 8_000)) * MS
        mid = walk[(time_N // MS - delay) // 10] + rng.choice([0.0, 0.1], len(time_N))
        found[name] = Quotes(time_N, mid - 0.5, mid + 0.5)
    return found


def test_the_late_look_at_the_early() -> None:
    quotes = market({"early": 0, "late": 60})
    table = suggest(quotes, frozenset(quotes))
    assert table.symbols == ("early", "late")
    assert table.leaders == {"late": ("early",)}
    lead = table.lead[1][0]
    assert lead is not None
    assert lead > 0.3
    assert table.lead[0][0] is None


def test_an_instrument_absent_on_the_day_to_predict_does_not_lead() -> None:
    quotes = market({"early": 0, "late": 60})
    assert suggest(quotes, frozenset({"late"})).leaders == {}


def test_strangers_do_not_lead() -> None:
    quotes = market({"one": 0}) | market({"other": 0}, seed=5)
    assert suggest(quotes, frozenset(quotes)).leaders == {}


def test_the_most_similar_leader_comes_first() -> None:
    base, stranger = market({"a": 0, "late": 60}), market({"b": 0, "b late": 60}, seed=8)
    quotes = base | stranger
    table = suggest(quotes, frozenset(quotes))
    assert table.leaders == {"late": ("a", "b"), "b late": ("b", "a")}


def test_few_rows_or_none_decide_nothing() -> None:
    quotes = {
        name: Quotes(quote.timestamp_N[:50], quote.bid_N[:50], quote.ask_N[:50])
        for name, quote in market({"a": 0, "b": 60}).items()
    }
    quotes["empty"] = Quotes(np.empty(0, np.int64), np.empty(0), np.empty(0))
    table = suggest(quotes, frozenset(quotes))
    assert table.leaders == {}
    assert {value for row in table.lead for value in row} == {None}


def test_constant_quotes_do_not_lead() -> None:
    quotes = market({"a": 0})
    flat = np.full(len(quotes["a"].bid_N), 10.0)
    quotes["flat"] = Quotes(quotes["a"].timestamp_N, flat, flat + 1)
    assert suggest(quotes, frozenset(quotes)).leaders == {}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("solo", {}),
        ("paired", None),
        ("venues", {"E.x": ("E.y",), "E.y": ("E.x",)}),
    ],
)
def test_names_decide_for_some_sets(chosen: str, expected: object) -> None:
    assert by_name(chosen, ("E.x", "E.y", "F.x")) == expected  # type: ignore[arg-type]
