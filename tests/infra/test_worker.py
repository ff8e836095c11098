import os
from pathlib import Path
from typing import Any

import pytest

from infra.servers import ServerError
from infra.worker import work
from model_code.settings import Settings


def test_the_process_is_replaced_by_the_worker(
    tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []

    def become(*arguments: Any) -> None:
        became.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        work(Settings(home=tmp_path, prefect_api_url=prefect_url), pool="local", once=True)
    ((program, command, variables),) = became
    assert program == command[0]
    assert command[-3:] == ["--pool", "local", "--run-once"]
    assert variables["PREFECT_API_URL"] == prefect_url
    assert variables["TICKLINE_HOME"] == str(tmp_path)


def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no Prefect server answers"):
        work(Settings(home=tmp_path, prefect_api_url="http://127.0.0.1:9/api"), pool="p", once=True)
