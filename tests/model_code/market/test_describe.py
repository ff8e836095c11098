import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from model_code.market.describe import describe, plot
from model_code.market.store import open_market
from tests.support.market import DATES, SYMBOLS, hive, quotes, ticks, write_hive


def size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_counts_gaps_and_faults(tmp_path):
    second = 1_000_000_000
    start = 1_723_118_400 * second  # 2024-08-08 12:00
    times = [start, start + second, start + 3 * second, start + 2 * second, start + 9 * second]
    table = pa.table(
        {
            "timestamp": pa.array(times, pa.timestamp("ns", "UTC")),
            "bid_price": [100.0, 100.0, 101.0, float("nan"), 100.0],
            "ask_price": [100.01, 100.02, 100.0, 100.01, 100.01],
        }
    )
    path = tmp_path / "quotes" / "symbol=AAA" / "date=2024-08-08.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    description = describe(open_market(str(tmp_path)))
    (day,) = description.days
    assert (day.rows, day.crossed, day.missing, day.backwards) == (5, 1, 1, 1)
    assert day.first == dt.datetime(2024, 8, 8, 12, tzinfo=dt.UTC)
    assert day.last == dt.datetime(2024, 8, 8, 12, 0, 9, tzinfo=dt.UTC)
    assert day.largest_gap_s == 6.0
    assert day.ticks_per_s == 0.0  # four of nine seconds have rows
    assert day.tightest == pytest.approx(2 / 3)
    assert day.spread_bps == pytest.approx(1.0, rel=1e-3)
    assert (day.trades, day.labelled) == (0, 0)


def test_an_empty_day_is_described(tmp_path):
    write_hive(tmp_path, ticks(0), SYMBOLS[0], DATES[0])
    description = describe(open_market(str(tmp_path)))
    (day,) = description.days
    assert (day.rows, day.first, day.spread_bps, day.ticks_per_s) == (0, None, None, 0.0)
    plot(description, tmp_path / "empty.png")
    assert size(tmp_path / "empty.png")[0] > 1000


def test_a_stray_stamp_costs_no_memory(tmp_path):
    table = quotes(ticks(100))
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    times[-1] += 100 * 365 * 86_400 * 10**9
    table = table.set_column(0, "timestamp", pa.array(times, pa.timestamp("ns", "UTC")))
    path = tmp_path / "quotes" / f"symbol={SYMBOLS[0]}" / "date=2024-08-08.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    (day,) = describe(open_market(str(tmp_path))).days
    assert day.ticks_per_s == 0.0
    assert day.largest_gap_s > 3e9


def test_plots_of_few_and_of_many_instruments(tmp_path):
    sizes = {}
    for count in (1, 14):
        uri = hive(
            tmp_path / f"{count}", 50, symbols=[f"S{i:02}" for i in range(count)], dates=DATES[:1]
        )
        path = tmp_path / f"{count}.png"
        plot(describe(open_market(uri)), path)
        sizes[count] = size(path)
    assert sizes[14][1] > sizes[1][1]
    assert sizes[14][1] < 3000  # twelve plotted, the rest counted in the title


def test_curves_start_and_end_at_the_days_own_prices(tmp_path):
    description = describe(open_market(hive(tmp_path, n=500)))
    table = ticks(500)
    bid, ask = table["bid_price"].to_numpy(), table["ask_price"].to_numpy()
    curves = description.curves[0]
    assert curves.mid[0] == (bid[0] + ask[0]) / 2
    assert curves.mid[-1] == (bid[-1] + ask[-1]) / 2
    assert min(curves.spread_bps) > 0
    assert len(description.curves) == len(description.days) == 4


def test_a_simulated_market_is_labelled(tmp_path):
    description = describe(open_market("simulated:?minutes=0.1&instruments=1&days=1"))
    assert description.simulated
    assert description.kind == "simulated"
    assert description.days[0].trades > 0


def test_real_fx_crossed_rows_are_counted(fx):
    fxcm = describe(open_market(fx)).days[0]
    assert (fxcm.symbol, fxcm.rows, fxcm.crossed) == ("EURUSD.fxcm", 17_428, 3_442)
