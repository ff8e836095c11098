import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXCEPTION = re.compile(r"[A-Z][A-Za-z0-9-]+ +until \d{4}-\d{2}-\d{2} +\S.{10,}")


def test_every_accepted_vulnerability_has_an_end_and_a_reason() -> None:
    lines = (ROOT / "infra" / "audit-exceptions.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or EXCEPTION.fullmatch(line), line


def test_the_audit_is_strict_and_passes_on_what_was_accepted(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    script = tmp_path / "infra" / "audit.sh"
    script.write_text((ROOT / "infra" / "audit.sh").read_text())
    (tmp_path / "infra" / "audit-exceptions.txt").write_text(
        "# GHSA-none-none-none\nPYSEC-2026-1  until 2027-01-01  never called from here\n"
    )
    uv = tmp_path / "venv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(0o755)
    done = subprocess.run(
        ["sh", str(script)],
        env={"VENV": str(tmp_path / "venv"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--strict" in done.stdout
    assert "-r requirements.lock --ignore-vuln PYSEC-2026-1" in done.stdout
    assert "GHSA" not in done.stdout
