"""`tickline data download` from a local host of archives, `import` and `describe` of formats."""

import datetime as dt
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import data
from model_code.errors import ConfigError, DataError, IntegrityError
from model_code.market.store import open_market
from tests.support import formats
from tests.support.cli import plain, tickline
from tests.support.market import DATES as SAMPLE_DATES
from tests.support.market import hive

DATES = (dt.date(2024, 3, 1), dt.date(2024, 3, 2))
ROWS = {
    "bookTicker": "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,"
    "transaction_time,event_time\n1,100.0,5,100.1,6,{ms},{ms}\n",
    "trades": "id,price,qty,quote_qty,time,is_buyer_maker\n7,100.1,2,200.2,{ms},false\n",
}


def archive(name: str, kind: str, date: dt.date) -> bytes:
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{name}.csv", ROWS[kind].format(ms=int(midnight.timestamp() * 1000)))
    return buffer.getvalue()


class Host(ThreadingHTTPServer):
    """Binance's layout of folders; `asked` are the paths of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        for date in DATES:
            for kind in ROWS:
                name = f"BTCUSDT-{kind}-{date}"
                body = archive(name, kind, date)
                path = f"/daily/{kind}/BTCUSDT/{name}.zip"
                self.files[path] = body
                checksum = hashlib.sha256(body).hexdigest()
                self.files[f"{path}.CHECKSUM"] = f"{checksum}  {name}.zip\n".encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/daily"


class Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloaded_archives_are_a_market_store(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.out, "width", 400)  # no path is folded
    folder = tmp_path / "archives"
    printed = tickline(
        "data", "download", "BTCUSDT", *DATES, "--folder", folder, "--base-url", host.url
    )
    served = {path.rpartition("/")[2]: body for path, body in host.files.items()}
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == {name: body for name, body in served.items() if name.endswith(".zip")}
    assert all(str(folder / name) in printed for name in written)
    assert [day.date for day in open_market(str(folder)).catalog()] == list(DATES)


def test_an_archive_that_is_not_the_published_one_is_not_kept(host: Host, tmp_path: Path) -> None:
    changed = f"/daily/trades/BTCUSDT/BTCUSDT-trades-{DATES[0]}.zip"
    host.files[changed] += b"changed on the way"
    with pytest.raises(IntegrityError, match="checksum"):
        tickline(
            "data", "download", "BTCUSDT", DATES[0], "--folder", tmp_path, "--base-url", host.url
        )
    assert [path.name for path in tmp_path.iterdir()] == [f"BTCUSDT-bookTicker-{DATES[0]}.zip"]


def test_a_wrong_date_is_an_error_before_anything_is_fetched(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2024-13-01"):
        tickline(
            "data", "download", "BTCUSDT", DATES[0], "2024-13-01",
            "--folder", tmp_path, "--base-url", host.url,
        )  # fmt: skip
    assert host.asked == []


DAYS = [formats.sample(date=date) for date in SAMPLE_DATES]


def test_an_import_says_what_it_read_wrote_and_left_out(tmp_path: Path) -> None:
    source, folder = formats.lobster(tmp_path / "lobster", DAYS), tmp_path / "hive"
    printed = tickline("data", "import", source, folder)
    for day in DAYS:
        assert f"{day.date} ABC.XNAS 300 {len(day.row)} 0 0 written" in printed
    assert "its name says 20:00:00" in printed
    assert f"next: tickline data describe --data {folder}" in printed
    assert printed.count("unchanged") == 0
    assert tickline("data", "import", source, folder).count("unchanged") == len(DAYS)
    assert "hive" in tickline("data", "describe", "--data", folder, "--picture", tmp_path / "p.png")


@pytest.mark.parametrize("prefix", ["", "parquet:"])
def test_an_import_takes_a_mapping(tmp_path: Path, prefix: str) -> None:
    source = Path(formats.taq(tmp_path / "taq", DAYS))
    mapping = (source / "mapping.yaml").rename(tmp_path / "mine.yaml")
    tickline("data", "import", f"{prefix}{source}", tmp_path / "hive", "--mapping", mapping)
    assert [day.symbol for day in open_market(str(tmp_path / "hive")).catalog()] == ["ABC.XNYS"] * 2
    with pytest.raises(ConfigError, match="--mapping is for your own Parquet"):
        tickline("data", "import", f"tardis:{source}", tmp_path / "x", "--mapping", mapping)


def test_an_import_with_a_refused_day_fails_and_writes_the_others(tmp_path: Path) -> None:
    source = formats.tardis(tmp_path / "tardis", DAYS)
    (tmp_path / "tardis" / f"binance_trades_{SAMPLE_DATES[0]}_ABCUSDT.csv.gz").unlink()
    done = CliRunner().invoke(data.app, ["import", source, str(tmp_path / "hive")])
    assert isinstance(done.exception, DataError)
    assert done.exception.what == "refused instrument-days: 1 of 2, for the reasons above"
    name = f"ABCUSDT.binance {SAMPLE_DATES[0]}"
    assert f"{name} refused: ABCUSDT.binance has no trades on" in plain(done.output)
    assert [day.date for day in open_market(str(tmp_path / "hive")).catalog()] == [SAMPLE_DATES[1]]


def test_a_format_that_needs_no_import_is_refused(tmp_path: Path) -> None:
    source = hive(tmp_path / "hive", n=5)
    with pytest.raises(ConfigError, match="the format hive needs no import"):
        tickline("data", "import", source, tmp_path / "x")


@pytest.mark.parametrize("kind", ["databento", "tardis", "lobster", "taq"])
def test_a_vendors_format_is_described_as_it_is(tmp_path: Path, kind: str) -> None:
    source = getattr(formats, kind)(tmp_path / kind, DAYS)
    printed = tickline("data", "describe", "--data", source, "--picture", tmp_path / "p.png")
    assert printed.count("aggressor: flag") == 1
    assert f"2024-08-08 ABC{'USDT' * (kind == 'tardis')}." in printed
