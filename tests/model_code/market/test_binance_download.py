import datetime as dt
import hashlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model_code.errors import IntegrityError, MarketError, StorageError
from model_code.market.binance_download import download

DATE = dt.date(2024, 3, 1)
NAME = f"BTCUSDT-bookTicker-{DATE}.zip"
BODY = bytes(range(256)) * 2000


class Host(ThreadingHTTPServer):
    """A local server: serves BODY, honours Range, cuts the transfer `cuts` times."""

    daemon_threads = True
    cuts = 0
    failures = 0
    resumes = True
    checksum = hashlib.sha256(BODY).hexdigest() + f"  {NAME}\n"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *args):
        pass

    def do_GET(self):
        host = self.server
        ranged = self.headers["Range"]
        host.asked.append((self.path, ranged))
        if not self.path.startswith(f"/bookTicker/BTCUSDT/{NAME}"):
            self.send_error(404)
        elif host.failures:
            host.failures -= 1
            self.send_error(503)
        elif self.path.endswith(".CHECKSUM"):
            self.answer(200, host.checksum.encode())
        elif ranged and host.resumes:
            found = re.fullmatch(r"bytes=(\d+)-", ranged)
            assert found
            start = int(found[1])
            if start >= len(BODY):
                self.send_error(416)
            else:
                self.answer(206, BODY[start:])
        else:
            self.answer(200, BODY)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts and not self.path.endswith(".CHECKSUM"):
            self.server.cuts -= 1
            body = body[: len(body) // 3]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def host():
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)


def fetch(host, folder, **options):
    base = f"http://127.0.0.1:{host.server_port}/"
    return download("BTCUSDT", DATE, folder, base_url=base, kinds=["bookTicker"], **options)


def ranges(host):
    return [ranged for path, ranged in host.asked if path.endswith(".zip")]


def test_downloads_and_verifies(host, tmp_path):
    (path,) = fetch(host, tmp_path / "new" / "folder")
    assert path.name == NAME
    assert path.read_bytes() == BODY
    assert sorted(p.name for p in path.parent.iterdir()) == [NAME]


def test_a_complete_file_is_not_downloaded_again(host, tmp_path):
    fetch(host, tmp_path)
    fetch(host, tmp_path)
    assert ranges(host) == [None]


def test_a_broken_transfer_is_resumed_where_it_stopped(host, tmp_path):
    host.cuts = 2
    (path,) = fetch(host, tmp_path)
    assert path.read_bytes() == BODY
    first = len(BODY) // 3
    second = first + (len(BODY) - first) // 3
    assert ranges(host) == [None, f"bytes={first}-", f"bytes={second}-"]


def test_the_next_call_resumes_from_the_part_file(host, tmp_path):
    host.cuts = 1
    with pytest.raises(MarketError, match="was interrupted") as caught:
        fetch(host, tmp_path, attempts=1)
    assert "resumes" in caught.value.remedy
    assert (tmp_path / f"{NAME}.part").stat().st_size == len(BODY) // 3
    (path,) = fetch(host, tmp_path)
    assert path.read_bytes() == BODY
    assert ranges(host)[-1] == f"bytes={len(BODY) // 3}-"


def test_a_complete_part_file_needs_no_more_bytes(host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    (path,) = fetch(host, tmp_path)
    assert path.read_bytes() == BODY


def test_a_host_that_does_not_resume_starts_over(host, tmp_path):
    host.resumes = False
    (tmp_path / f"{NAME}.part").write_bytes(b"old")
    (path,) = fetch(host, tmp_path)
    assert path.read_bytes() == BODY


def test_a_wrong_checksum_deletes_the_file(host, tmp_path):
    host.checksum = "0" * 64 + f"  {NAME}\n"
    with pytest.raises(IntegrityError, match="published checksum: expected sha256 000000000000"):
        fetch(host, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_checksum_is_refused(host, tmp_path):
    host.checksum = "<html>"
    with pytest.raises(IntegrityError, match="checksum is not a sha256"):
        fetch(host, tmp_path)


def test_a_busy_host_is_retried(host, tmp_path):
    host.failures = 2
    (path,) = fetch(host, tmp_path)
    assert path.read_bytes() == BODY


def test_a_missing_archive_is_not_retried(host, tmp_path):
    base = f"http://127.0.0.1:{host.server_port}"
    with pytest.raises(MarketError, match="HTTP 404") as caught:
        download("NOPE", DATE, tmp_path, base_url=base)
    assert "check symbol and date" in caught.value.remedy
    assert len(host.asked) == 1


def test_an_unreachable_host_is_reported(tmp_path):
    with pytest.raises(MarketError, match="was interrupted"):
        download("BTCUSDT", DATE, tmp_path, base_url="http://127.0.0.1:9", attempts=2)


def test_a_folder_that_cannot_be_created_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        download("BTCUSDT", DATE, tmp_path / "file" / "folder")


def test_a_full_disk_is_a_storage_error(host, tmp_path):
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        fetch(host, tmp_path)
    assert "df -h" in caught.value.remedy
