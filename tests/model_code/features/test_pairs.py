"""What an instrument sees of another: against the definition, without look-ahead, live as batch."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.features import batch, incremental, kernel, pairs
from model_code.features.definition import names
from model_code.features.incremental import FeatureState, Recent, group
from model_code.market.schema import TICKS
from model_code.settings import FeatureSpec
from tests.support.market import DATES, SYMBOLS, ticks

MS = 1_000_000
GAP_NS = 10_000 * MS
SPEC = FeatureSpec(feature_set="paired")
LEADER, FOLLOWER = SYMBOLS
LEADERS = {FOLLOWER: (LEADER,)}
Look = Callable[..., None]


def states(timestamps: list[int], seed: int = 0) -> np.ndarray:
    """States of a stream with these stamps and random quotes."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(timestamps), kernel.TICK)
    rows["timestamp"] = timestamps
    rows["bid_price"] = 100 + rng.integers(0, 8, len(rows)) * 0.5
    rows["ask_price"] = rows["bid_price"] + 0.5 * rng.integers(1, 3, len(rows))
    rows["bid_size"], rows["ask_size"] = rng.integers(1, 9, (2, len(rows)))
    found = np.empty(len(rows), kernel.STATE)
    taken = kernel.run(
        kernel.new_state(),
        rows,
        GAP_NS,
        np.empty((len(rows), 16), np.float32),
        np.empty(len(rows), np.int32),
        found,
    )
    assert taken == len(rows)
    return found


def slog(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)


def expected(own: np.ndarray, i: int, there: np.ndarray) -> dict[str, float] | None:
    """The definition at the receiver's row i, without the running basis; None if hidden."""
    now = own[i]["timestamp"]
    seen = there[there["timestamp"] < now]
    if not len(seen) or now - seen[-1]["timestamp"] > GAP_NS:
        return None
    new, segment = seen[-1], seen[seen["segment"] == seen[-1]["segment"]]

    def then(span: int) -> int:
        return max(0, int((segment["timestamp"] < now - span * MS).sum()) - 1)

    def mid(row: np.void) -> float:
        return 0.5 * float(row["bid_price"] + row["ask_price"])

    last, tick = len(segment) - 1, own[i]["tick"]
    moves = {
        f"move_{span}ms": slog((mid(new) - mid(segment[then(span)])) / new["tick"])
        for span in (20, 100, 500)
    }
    return moves | {
        "imbalance": (new["bid_size"] - new["ask_size"]) / (new["bid_size"] + new["ask_size"]),
        "age": math.log1p((now - new["timestamp"]) / 1000),
        "rows_20ms": math.log1p(last - then(20)),
        "rows_100ms": math.log1p(last - then(100)),
        "spread": slog((new["ask_price"] - new["bid_price"]) / tick),
        "gap_buy_here": slog((new["bid_price"] - own[i]["ask_price"]) / tick),
        "gap_buy_there": slog((own[i]["bid_price"] - new["ask_price"]) / tick),
    }


@pytest.fixture(params=["compiled", "python"])
def look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Look:
    """The compiled step, then the same source as plain Python, which coverage can measure."""
    pairs.look(
        states([1])[0], pairs.new_pair(), states([1]), 1, GAP_NS, np.empty(pairs.WIDTH, np.float32)
    )
    if request.param == "python":
        for name, value in list(vars(pairs).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(pairs, name, value.py_func)
    function: Look = pairs.look
    return function


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_the_definition(look: Look, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.choice(
        [0, 1, 5, 20, 100, 400, 11_000], (2, 60), p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.08, 0.02]
    )
    own, there = (states((np.cumsum(row) * MS).tolist(), seed + k) for k, row in enumerate(gaps))
    basis_1, hidden = pairs.new_pair(), 0
    for i in range(len(own)):
        found_P = np.empty(pairs.WIDTH, np.float32)
        look(own[i], basis_1, there, len(there), GAP_NS, found_P)
        wanted = expected(own, i, there)
        if wanted is None:
            hidden += 1
            assert not found_P.any()
            assert math.isnan(basis_1[0])
            continue
        named = dict(zip(pairs.CHANNELS, found_P.tolist(), strict=True))
        assert {name: named[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    assert hidden < len(own)


def test_the_basis_is_measured_from_its_own_running_mean(look: Look) -> None:
    own, there = states([10 * MS, 20 * MS, 30 * MS], 1), states([MS, 12 * MS, 25 * MS], 2)
    basis_1, mean = pairs.new_pair(), math.nan
    for i in range(3):
        found_P = np.empty(pairs.WIDTH, np.float32)
        look(own[i], basis_1, there, 3, GAP_NS, found_P)
        mids = [0.5 * float(row["bid_price"] + row["ask_price"]) for row in (there[i], own[i])]
        basis = math.log(mids[0] / mids[1]) * mids[1] / own[i]["tick"]
        mean = basis if math.isnan(mean) else mean + 2 / 513 * (basis - mean)
        assert found_P[1] == pytest.approx(slog(basis - mean), abs=1e-6)
    assert basis_1[0] == pytest.approx(mean)


@pytest.mark.parametrize("there_at", [[], [-11_000], [1000], [2000]], ids=str)
def test_absent_silent_and_later_instruments_are_zeros(look: Look, there_at: list[int]) -> None:
    start = 20_000
    there = states([(start + at) * MS for at in there_at])
    found_P = np.full(pairs.WIDTH, 7.0, np.float32)
    basis_1 = np.array([3.0])
    look(states([(start + 1000) * MS])[0], basis_1, there, len(there), GAP_NS, found_P)
    assert not found_P.any()
    assert math.isnan(basis_1[0])


def test_another_date_is_not_seen(look: Look) -> None:
    midnight = 86_400_000 * MS
    there, found_P = states([midnight - MS]), np.empty(pairs.WIDTH, np.float32)
    look(states([midnight + MS])[0], pairs.new_pair(), there, 1, GAP_NS, found_P)
    assert not found_P.any()


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_the_same_stamp_or_later_say_nothing(look: Look, seed: int) -> None:
    there = states([MS, 5 * MS, 30 * MS, 30 * MS, 50 * MS], seed)
    changed = np.concatenate([there[:2], states([MS, 5 * MS, 30 * MS, 30 * MS, 50 * MS], 99)[2:]])
    own = states([30 * MS])[0]
    found = []
    for others in (there, changed, there[:2]):
        found_P = np.empty(pairs.WIDTH, np.float32)
        look(own, pairs.new_pair(), others, len(others), GAP_NS, found_P)
        found.append(found_P.tolist())
    assert found[0] == found[1] == found[2]
    assert any(found[0])


def test_a_step_that_counts_equal_stamps_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: with `<=` in place of `<` a row of the same stamp is seen."""
    for name, value in list(vars(pairs).items()):
        if hasattr(value, "py_func"):
            monkeypatch.setattr(pairs, name, value.py_func)
    strict = pairs._rows_before
    monkeypatch.setattr(
        pairs, "_rows_before", lambda other, count, stamp: strict(other, count, stamp + 1)
    )
    there, found = states([MS, 5 * MS, 30 * MS]), []
    for others in (there, there[:2]):
        found_P = np.empty(pairs.WIDTH, np.float32)
        pairs.look(states([30 * MS])[0], pairs.new_pair(), others, len(others), GAP_NS, found_P)
        found.append(found_P.tolist())
    assert found[0] != found[1]


def merged(tables: dict[str, pa.Table]) -> list[tuple[str, dict[str, float]]]:
    """All rows of all instruments in arrival order."""
    fields = [field.name for field in TICKS if field.name not in {"symbol", "label"}]
    events = []
    for symbol, table in tables.items():
        for row in table.select(fields).to_pylist():
            stamp = row.pop("timestamp").value
            events.append((stamp, symbol, row))
    events.sort(key=lambda event: event[0])
    return [(symbol, {"timestamp_ns": stamp} | row) for stamp, symbol, row in events]


@pytest.mark.parametrize("first_rows", [4, 1024])
def test_live_equals_batch_bit_for_bit(monkeypatch: pytest.MonkeyPatch, first_rows: int) -> None:
    monkeypatch.setattr(incremental, "FIRST_ROWS", first_rows)
    tables = {symbol: coarse(ticks(900, 3, symbol)) for symbol in SYMBOLS}
    leader = batch.compute(tables[LEADER], SPEC)
    whole = {
        LEADER: leader.features_NF,
        FOLLOWER: batch.compute(tables[FOLLOWER], SPEC, [leader.states_N]).features_NF,
    }
    live = group(SPEC, SYMBOLS, LEADERS)
    found: dict[str, list[np.ndarray]] = {symbol: [] for symbol in SYMBOLS}
    for symbol, tick in merged(tables):
        found[symbol].append(live[symbol].update(**tick).copy())  # type: ignore[arg-type]
    for symbol in SYMBOLS:
        assert np.array_equal(np.stack(found[symbol]), whole[symbol])
    seen = [name.startswith("leader_") for name in names("paired")]
    assert (whole[FOLLOWER][:, seen].std(axis=0) > 0).all()
    assert not whole[LEADER][:, seen].any()


def coarse(table: pa.Table) -> pa.Table:
    """Stamps floored to 10 ms, so that many are equal between instruments."""
    stamp = table["timestamp"].to_numpy().astype(np.int64) // (10 * MS) * (10 * MS)
    return table.set_column(0, TICKS.field(0), pa.array(stamp, TICKS.field(0).type))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=5))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    there = batch.compute(ticks(300, 3, LEADER), SPEC).states_N
    table = ticks(300, 3, FOLLOWER)
    stream, edges = batch.FeatureStream(SPEC, [there]), [0, *sorted(cuts), 300]
    parts = [
        stream.update(record).features_NF
        for first, end in pairwise(edges)
        for record in table.slice(first, end - first).to_batches()
    ]
    assert np.array_equal(np.concatenate(parts), batch.compute(table, SPEC, [there]).features_NF)


def test_old_rows_of_a_leader_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "FIRST_ROWS", 8)
    recent, stamps = Recent(), [i * 1000 * MS for i in range(500)]
    for state in states(stamps):
        recent.append(state)
    assert len(recent.states_N) < 64
    kept = recent.states_N[: recent.count]["timestamp"]
    assert kept[-1] == stamps[-1]
    assert kept[0] <= stamps[-1] - pairs.FAR_NS


def test_a_group_without_a_leader_is_refused() -> None:
    with pytest.raises(DataError, match=f"no ticks of {LEADER}"):
        group(SPEC, (FOLLOWER,), LEADERS)


def test_whoever_looks_at_nobody_has_zeros() -> None:
    alone = FeatureState(SPEC)
    row = ticks(1, 0, LEADER, DATES[0]).to_pylist()[0]
    found_F = alone.update(row["timestamp"].value, row["bid_price"], row["ask_price"])
    seen = [name.startswith(("leader_", "second_")) for name in names("paired")]
    assert sum(seen) == 8
    assert not found_F[seen].any()
