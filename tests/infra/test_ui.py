import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra import ui
from model_code.settings import Settings


def test_both_servers_run_until_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    @contextmanager
    def started(name: str, command: list[str], *_: object) -> Iterator[None]:
        events.append(f"{name} {command[command.index('--port') + 1]}")
        yield
        events.append(f"{name} stopped")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ui, "started", started)
    monkeypatch.setattr(time, "sleep", interrupt)
    ui.serve(Settings(home=tmp_path), prefect_port=4321, mlflow_port=5432, say=events.append)
    assert events[1:3] == ["prefect-ui 4321", "mlflow-ui 5432"]
    assert [text.split()[1] for text in events[3:5]] == [
        "http://127.0.0.1:4321", "http://127.0.0.1:5432",
    ]  # fmt: skip
    assert events[-3:] == ["stopping", "mlflow-ui stopped", "prefect-ui stopped"]
