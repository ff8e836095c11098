import os
import shutil
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
from mlflow.tracking import MlflowClient

from flows.demos import postgres
from flows.demos.hosts import on_loopback
from flows.demos.shared_servers import s3_environment, shared_servers
from model_code.errors import ConfigError
from model_code.storage.objects import Objects
from model_code.storage.shared import shared_objects


@pytest.mark.servers
def test_homes_share_the_store_the_runs_and_their_artefacts(tmp_path: Path) -> None:
    try:
        postgres.binaries()
    except ConfigError as error:
        pytest.skip(str(error))
    host = on_loopback(("servers",)).hosts["servers"]
    (tmp_path / "servers").mkdir()
    with shared_servers(host, tmp_path / "servers") as shared:
        first, second = (shared.settings(tmp_path / name) for name in ("a", "b"))
        with patch.dict(os.environ, s3_environment(shared.s3)):
            objects = shared_objects(first)
            assert objects is not None
            assert objects.create("one/key", b"value")
            there = shared_objects(second)
            assert there is not None
            assert there.read("one/key") == b"value"
            assert httpx.get(f"{shared.prefect}/health").json() is True
            run = MlflowClient(first.tracking_uri).create_run("0").info.run_id
            MlflowClient(first.tracking_uri).log_text(run, "hello", "hello.txt")
            found = MlflowClient(second.tracking_uri).download_artifacts(run, "hello.txt")
            assert Path(found).read_text() == "hello"
            assert [key for key in Objects("s3://mlflow").keys("0") if key.endswith("hello.txt")]
    assert not list(tmp_path.rglob("*.db"))  # both servers used Postgres


def test_a_machine_without_postgres_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="apt-get install postgresql"):
        postgres.binaries()
