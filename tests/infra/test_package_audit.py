"""`make audit`: the real script and the real pip-audit, against advisories planted on loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXCEPTION = re.compile(r"[A-Z][A-Za-z0-9-]+ +until \d{4}-\d{2}-\d{2} +\S.{10,}")
FLAW = "GHSA-1111-2222-3333"


class Advisories:
    """Answers pip-audit as osv.dev does."""

    def __init__(self) -> None:
        self.vulnerable: set[str] = set()
        self.down = False
        self.asked: set[tuple[str, str]] = set()
        advisories = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = query["package"]["name"]
                advisories.asked.add((name, query["version"]))
                answer: dict[str, Any] = {}
                if name in advisories.vulnerable:
                    package = {"name": name, "ecosystem": "PyPI"}
                    answer = {"vulns": [{"id": FLAW, "affected": [{"package": package}]}]}
                body = json.dumps(answer).encode()
                self.send_response(500 if advisories.down else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def advisories(_pip_audit: None) -> Iterator[Advisories]:
    planted = Advisories()
    thread = threading.Thread(target=planted.server.serve_forever)
    thread.start()
    yield planted
    planted.server.shutdown()
    thread.join()
    planted.server.server_close()


@pytest.fixture(scope="module")
def _pip_audit() -> None:
    uv = Path(sys.prefix) / "bin" / "uv"
    command = [str(uv), "tool", "run", "pip-audit", "--version"]
    if not uv.exists() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("pip-audit cannot be fetched with uv here")


def audit(
    folder: Path, advisories: Advisories, lock: str, exceptions: str = ""
) -> subprocess.CompletedProcess[str]:
    (folder / "infra").mkdir()
    shutil.copy2(ROOT / "infra" / "audit.sh", folder / "infra")
    (folder / "infra" / "audit-exceptions.txt").write_text(exceptions)
    (folder / "requirements.lock").write_text(lock)
    planted = {
        "VENV": sys.prefix,
        "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
        "PIP_AUDIT_OSV_URL": advisories.url,
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [str(folder / "infra" / "audit.sh")],
        env=os.environ | planted,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_locked_package_is_looked_up_and_a_vulnerable_one_fails_the_audit(
    tmp_path: Path, advisories: Advisories
) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    lines = [line.partition("#")[0].strip() for line in lock.splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    advisories.vulnerable = {"numpy"}
    done = audit(tmp_path, advisories, lock)
    assert done.returncode != 0
    assert re.findall(rf"^(\S+) +\S+ +{FLAW}", done.stdout, re.MULTILINE) == ["numpy"]
    assert advisories.asked == {
        (found.name, str(found.specifier).removeprefix("=="))
        for found in wanted
        if found.marker is None or found.marker.evaluate()
    }


def test_packages_without_a_known_vulnerability_pass(
    tmp_path: Path, advisories: Advisories
) -> None:
    advisories.vulnerable = {"numpy"}
    done = audit(tmp_path, advisories, "anyio==4.0.0\nrich==14.0.0\n")
    assert done.returncode == 0, done.stderr
    assert {name for name, _ in advisories.asked} == {"anyio", "rich"}


@pytest.mark.parametrize(("accepted", "passes"), [(FLAW, True), ("GHSA-none-none-none", False)])
def test_only_the_accepted_vulnerability_passes(
    tmp_path: Path, advisories: Advisories, accepted: str, passes: bool
) -> None:
    advisories.vulnerable = {"rich"}
    exceptions = f"# {FLAW}  in a comment\n{accepted}  until 2027-01-01  never called from here\n"
    done = audit(tmp_path, advisories, "rich==14.0.0\n", exceptions)
    assert (done.returncode == 0) is passes, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lock", "down"),
    [("rich==14.0.0\n", True), ("rich @ https://127.0.0.1/rich-14.0.0.tar.gz\n", False)],
    ids=["the advisories answer with an error", "the lock has no version"],
)
def test_a_package_that_cannot_be_looked_up_fails_the_audit(
    tmp_path: Path, advisories: Advisories, lock: str, down: bool
) -> None:
    advisories.down = down
    assert audit(tmp_path, advisories, lock).returncode != 0


def unexplained(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("#") and not EXCEPTION.fullmatch(line)]


def test_every_accepted_vulnerability_has_an_end_date_and_a_reason() -> None:
    planted = [
        "PYSEC-2026-1",
        "PYSEC-2026-1  never called from here",
        "PYSEC-2026-1  until 2027-01-01",
        "until 2027-01-01  never called from here",
    ]
    assert unexplained(planted) == planted
    assert unexplained(["PYSEC-2026-1  until 2027-01-01  never called from here"]) == []
    assert unexplained((ROOT / "infra" / "audit-exceptions.txt").read_text().splitlines()) == []
