"""`tickline backfill`: one process for each date of the range, then a table.

Real runs are in tests/flows/test_backfill.py; here a script stands in for their processes.
"""

import json
import sys
from pathlib import Path

import pytest

from flows.cli import nightly
from model_code.errors import ConfigError, DataError
from model_code.settings import Settings
from tests.support.cli import tickline

MARKET = "simulated:?seed=3&instruments=1&days=4&minutes=2"  # 2000-01-03 to 2000-01-06
DATES = ("2000-01-04", "2000-01-05")
# waits until both dates have begun, so that it fails if they are run one after the other
SCRIPT = """#!{python} -S
import json, pathlib, sys, time
order_path, result_path = map(pathlib.Path, sys.argv[-2:])
order = json.loads(order_path.read_text())
date = order["spec"]["test_date"]
(result_path.parent / f"{{date}}.begun").touch()
deadline = time.monotonic() + {patience}
while len(list(result_path.parent.glob("*.begun"))) < 2:
    if time.monotonic() > deadline:
        sys.exit(3)
    time.sleep(0.02)
result = {{"date": date, "verdict": "pass", "engine": "openvino-fp32", "auc": 0.7375,
          "baseline_auc": None, "mlflow_run_id": "m"}}
result_path.write_text(json.dumps(result))
"""


@pytest.fixture
def orders(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the orders that the script was given, and of its results."""
    monkeypatch.setattr(nightly.out, "width", 200)  # no cell is cut off
    script = tmp_path / "stand-in"
    script.write_text(SCRIPT.format(python=sys.executable, patience=20))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return home.home / "backfill"


def test_backfill_prints_a_row_for_each_date(orders: Path) -> None:
    printed = tickline("backfill", *DATES, "--data", MARKET, "--parallel", "2")
    for date in DATES:
        assert f"{date} pass openvino-fp32 0.7375 –" in printed
        order = json.loads((orders / f"{date}.order.json").read_text())
        assert order["spec"]["market"] == MARKET
    assert sorted(path.stem for path in orders.glob("*.begun")) == list(DATES)


def test_backfill_names_the_dates_whose_process_failed(orders: Path, tmp_path: Path) -> None:
    script = tmp_path / "stand-in"
    script.write_text(script.read_text().replace("+ 20", "+ 0"))  # the first gives up at once
    with pytest.raises(DataError, match=rf"{DATES[0]}: .*\b3\b"):
        tickline("backfill", *DATES, "--data", MARKET)
    assert sorted(path.name for path in orders.glob("*-0?.json")) == [f"{DATES[1]}.json"]


def test_backfill_without_a_date_in_the_store_runs_nothing(orders: Path) -> None:
    with pytest.raises(ConfigError, match="1999-01-01"):
        tickline("backfill", "1999-01-01", "1999-01-02", "--data", MARKET)
    assert not orders.exists()


def test_as_of_needs_a_run() -> None:
    with pytest.raises(ConfigError, match="--as-of needs a run") as caught:
        tickline("nightly", "--as-of")
    assert "--from-run RUN --as-of" in caught.value.remedy
