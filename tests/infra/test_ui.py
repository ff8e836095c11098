import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from infra import ui
from model_code.settings import Settings

PASSWORD = "of twelve letters"  # noqa: S105


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
        "http://127.0.0.1:4321",
        "http://127.0.0.1:5432/#/experiments?workflowType=machine_learning",  # no night yet
    ]
    assert events[-3:] == ["stopping", "mlflow-ui stopped", "prefect-ui stopped"]


@pytest.mark.parametrize(
    ("tags", "path"),
    [
        (
            [{"key": ui.VIEW_TAG, "value": "{}"}],
            "experiments/7/runs?{view}&viewStateShareKey=nights",
        ),
        ([], "experiments/7/runs?{view}"),
        (None, "experiments?{view}"),
    ],
    ids=["with columns", "of an earlier version", "before the first night"],
)
def test_the_link_to_the_nights_opens_the_view_of_training(
    tags: list[dict[str, str]] | None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def get(url: str, *, params: dict[str, str], auth: object, timeout: float) -> httpx.Response:
        asked.extend([url, params, auth])
        status, body = (404, {}) if tags is None else (
            200, {"experiment": {"experiment_id": "7", "tags": tags}}
        )  # fmt: skip
        return httpx.Response(status, json=body, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    settings = Settings(auth_password=PASSWORD, mlflow_experiment="e")
    link = ui.nights_link(settings, "http://mlflow:5000")
    assert link == "http://mlflow:5000/#/" + path.format(view="workflowType=machine_learning")
    assert asked[1:] == [{"experiment_name": "e"}, (settings.auth_username, PASSWORD)]
