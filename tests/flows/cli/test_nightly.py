"""`tickline backfill`: one process for each date of the range, then a table.

Real nights are in tests/flows/test_backfill.py; here a script stands in for their processes.
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
# waits until both nights' processes have begun: one at a time, they would never end
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
night = {{"date": date, "verdict": "pass", "engine": "openvino-fp32", "auc": 0.7375,
         "baseline_auc": None, "mlflow_run_id": "m"}}
result_path.write_text(json.dumps(night))
"""


@pytest.fixture
def nights(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the orders that the script was given, which stands in for the nights."""
    monkeypatch.setattr(nightly.out, "width", 200)  # no cell is cut off
    script = tmp_path / "night"
    script.write_text(SCRIPT.format(python=sys.executable, patience=20))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return home.home / "backfill"


def test_backfill_prints_what_each_date_would_have_said(nights: Path) -> None:
    said = tickline("backfill", *DATES, "--data", MARKET, "--parallel", "2")
    for date in DATES:
        assert f"{date} pass openvino-fp32 0.7375 –" in said
        order = json.loads((nights / f"{date}.order.json").read_text())
        assert order["spec"]["market"] == MARKET
    assert sorted(path.stem for path in nights.glob("*.begun")) == list(DATES)


def test_backfill_names_the_dates_whose_process_failed(nights: Path, tmp_path: Path) -> None:
    script = tmp_path / "night"
    script.write_text(script.read_text().replace("+ 20", "+ 0"))  # the first gives up at once
    with pytest.raises(DataError, match=rf"{DATES[0]}: .*\b3\b"):
        tickline("backfill", *DATES, "--data", MARKET)
    assert sorted(path.name for path in nights.glob("*-0?.json")) == [f"{DATES[1]}.json"]


def test_backfill_without_a_date_in_the_store_runs_nothing(nights: Path) -> None:
    with pytest.raises(ConfigError, match="1999-01-01"):
        tickline("backfill", "1999-01-01", "1999-01-02", "--data", MARKET)
    assert not nights.exists()
