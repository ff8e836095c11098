import datetime as dt

import numpy as np
import pytest

from model_code.errors import ConfigError, MarketError
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.simulated import SimulatedStore, Simulation
from model_code.market.simulated_book import Book, next_arrival, run_book, touch
from model_code.market.store import open_market

# Over the real captures (10 instrument-days of BTC and ETH on three Binance markets):
QUOTES_PER_SECOND = (46.0, 192.0)
TIGHTEST_SHARE = (0.88, 0.953)
LABEL_RATE = (0.26, 0.40)


def calibration(ticks):
    """Quotes per second, share of rows at the tightest spread, share followed by a round trip."""
    time = ticks["timestamp"].cast("int64").to_numpy()
    bid, ask = ticks["bid_price"].to_numpy(), ticks["ask_price"].to_numpy()
    spread = ask - bid
    label = np.zeros(len(time), bool)
    for lag in range(1, 400):
        near = time[lag:] <= time[:-lag] + 100_000_000
        label[:-lag] |= near & ((bid[lag:] > ask[:-lag]) | (ask[lag:] < bid[:-lag]))
        if not near.any():
            break
    pace = len(time) / (time[-1] - time[0]) * 1e9
    return pace, (spread < 1.01 * spread.min()).mean(), label.mean()


def inside(value, band):
    return band[0] <= value <= band[1]


@pytest.mark.parametrize("seed", [7, 11])
def test_calibrated_to_the_real_files(seed):
    store = open_market(f"simulated:?seed={seed}")
    for day in store.catalog():
        pace, tightest, label = calibration(store.read(day))
        assert inside(pace, QUOTES_PER_SECOND), (day, pace)
        assert inside(tightest, TIGHTEST_SHARE), (day, tightest)
        assert inside(label, LABEL_RATE), (day, label)


def test_the_bands_are_those_of_the_real_files(binance):
    store = open_market(binance)
    found = np.array([calibration(store.read(day)) for day in store.catalog()])
    for column, band in zip(found.T, (QUOTES_PER_SECOND, TIGHTEST_SHARE, LABEL_RATE), strict=True):
        assert column.min() == pytest.approx(band[0], rel=0.02)
        assert column.max() == pytest.approx(band[1], rel=0.02)


def test_queue_imbalance_predicts_the_next_move():
    store = open_market("simulated:?minutes=3&instruments=1&days=1")
    ticks = store.read(store.catalog()[0])
    bid, ask, bid_size, ask_size = (ticks[name].to_numpy() for name in TICKS.names[2:6])
    mid = bid + ask
    change = np.flatnonzero(np.diff(mid))
    upcoming = np.searchsorted(change, np.arange(len(mid) - 1))
    known = upcoming < len(change)
    rises = np.diff(mid)[change[upcoming[known]]] > 0
    imbalance = (bid_size / (bid_size + ask_size))[:-1][known]
    assert rises[imbalance > 0.8].mean() > 0.6
    assert rises[imbalance < 0.2].mean() < 0.4


def test_same_seed_same_ticks_and_other_keys_differ():
    uri = "simulated:?minutes=0.2"
    days = open_market(uri).catalog()
    tables = [open_market(uri).read(day) for day in days]
    assert all(open_market(uri).read(d).equals(t) for d, t in zip(days, tables, strict=True))
    prices = {tuple(table["bid_size"].to_pylist()) for table in tables}
    other = open_market(f"{uri}&seed=8").read(days[0])
    assert len(prices | {tuple(other["bid_size"].to_pylist())}) == len(days) + 1


def test_ticks_are_clean_and_tidy():
    store = open_market("simulated:?minutes=0.5")
    assert isinstance(store, SimulatedStore)
    assert store.simulated
    assert [day.symbol for day in store.catalog()] == ["SIMA.sim", "SIMB.sim"] * 2
    for day in store.catalog():
        table = store.read(day)
        assert table.schema == TICKS
        frame = table.to_pandas()
        assert (frame["bid_price"] < frame["ask_price"]).all()
        assert (frame[["bid_size", "ask_size"]] > 0).all(axis=None)
        assert frame["timestamp"].is_monotonic_increasing
        assert set(frame["timestamp"].dt.date) == {day.date}
        assert frame["trade_count"].sum() > 0.1 * len(frame)
        assert table["label"].null_count == len(frame)


def test_digest_follows_seed_and_length_only():
    uri = "simulated:?minutes=0.2"
    day = open_market(uri).catalog()[0]
    assert open_market(uri).digest(day) == open_market(f"{uri}&instruments=3").digest(day)
    different = [open_market(f"{uri}&seed=8"), open_market("simulated:?minutes=0.3")]
    assert len({store.digest(day) for store in [open_market(uri), *different]}) == 3


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("sed=7", "sed"),
        ("seed=x", "seed"),
        ("minutes=0", "minutes"),
        ("instruments=27", "instruments"),
        ("minutes=nan", "minutes"),
        ("seed", "bad query field"),
    ],
)
def test_a_bad_parameter_is_named(query, named):
    with pytest.raises(ConfigError, match=named) as caught:
        open_market(f"simulated:?{query}")
    assert all(name in caught.value.remedy for name in Simulation.model_fields)


def test_an_unknown_day_is_refused():
    day = InstrumentDay(dt.date(2000, 1, 3), "SIMZ.sim")
    store = open_market("simulated:")
    for method in (store.read, store.digest):
        with pytest.raises(MarketError, match=r"no SIMZ.sim on 2000-01-03"):
            method(day)


def test_kernel_as_python_equals_compiled():
    compiled = run_book(Book(), np.random.default_rng(1), 3.0, 1000, 200)
    python = run_book.py_func(Book(), np.random.default_rng(1), 3.0, 1000, 200)
    np.testing.assert_allclose(compiled, python, rtol=1e-9)
    for seed in range(40):
        plain = touch.py_func(Book(), np.random.default_rng(seed), 2.0, 0.5)
        assert touch(Book(), np.random.default_rng(seed), 2.0, 0.5) == pytest.approx(plain)
    fast = next_arrival(Book(), np.random.default_rng(1), 500.0, 5.0)
    assert fast == pytest.approx(next_arrival.py_func(Book(), np.random.default_rng(1), 500.0, 5.0))


def test_capacity_bounds_the_rows():
    assert run_book(Book(), np.random.default_rng(1), 1e9, 1000, 50).shape == (50, 8)
