"""NVIDIA's tool: its command line, its report, its failures. The tool itself is a script here."""

from pathlib import Path

import pytest

from infra.triton import perf_analyzer
from model_code.errors import ServingError

HEADER = "Request Rate,Inferences/Second,p50 latency,p90 latency,p95 latency,p99 latency"


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / perf_analyzer.TOOL
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_without_the_tool_there_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert perf_analyzer.open_loop_ms("127.0.0.1:1", 200.0, 1.0) is None


def test_microseconds_of_its_report_become_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"""for last; do :; done
echo "$@" > {tmp_path}/argv
printf '{HEADER}\\n200,199.8,1234,2000,3000,4567\\n' > "${{last#-f}}" """
    install(tmp_path, script, monkeypatch)
    assert perf_analyzer.open_loop_ms("127.0.0.1:1", 200.0, 1.5) == (1.234, 4.567)
    argv = (tmp_path / "argv").read_text().split()
    assert "-u127.0.0.1:1" in argv
    assert "--request-rate-range=200" in argv
    assert "--measurement-interval=1500" in argv
    assert "--shape=input__0:64,16" in argv


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no such model; exit 99", "exit status 99: no such model"),
        ("exit 0", "exit status 0"),
        ("for last; do :; done; echo a,b > ${last#-f}", "without p50 and p99"),
    ],
)
def test_a_failure_is_one_message(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, script, monkeypatch)
    with pytest.raises(ServingError, match=said):
        perf_analyzer.open_loop_ms("127.0.0.1:1", 200.0, 1.0)
