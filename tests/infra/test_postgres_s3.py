"""The stack's real stores: Postgres for Prefect and MLflow, an S3 server for artefacts."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from infra.servers import HOST, environment, free_port, started
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tests.support.postgres import postgres
from tests.support.s3 import s3_bucket
from tests.support.stack import KUBERNETES

FLOW = """
from prefect import flow, task

@task(persist_result=True)
def double(x: int) -> int:
    return 2 * x

@flow
def small() -> int:
    return double(21)

assert small() == 42
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres("prefect", "mlflow") as address:
        yield address


@pytest.fixture
def bucket() -> Iterator[str]:
    """URI of an empty bucket on a real S3-compatible server."""
    with s3_bucket("mlflow") as uri:
        yield uri


def test_a_tracked_run_on_postgres_with_artefacts_in_s3(
    database: str, bucket: str, tmp_path: Path
) -> None:
    settings = Settings(
        home=tmp_path, mlflow_tracking_uri=f"postgresql+psycopg2://{database}/mlflow"
    ).resolved()
    mlflow = mlflow_runs.client(settings)
    mlflow.create_experiment(settings.mlflow_experiment, artifact_location=f"{bucket}/nightly")
    identity = {mlflow_runs.FLOW_RUN_TAG: "one"}
    run_id = mlflow_runs.continue_or_start(mlflow, settings, name="a", identity=identity, tags={})
    child = mlflow_runs.nested(mlflow, settings, run_id, "training")
    mlflow_runs.log_metrics(mlflow, child, {"auc": 0.75})
    mlflow.log_text(child, "hello", "notes/hello.txt")
    mlflow_runs.finish(mlflow, run_id, "FINISHED")
    # the same flow run resumes in the same MLflow run
    assert run_id == mlflow_runs.continue_or_start(
        mlflow, settings, name="a", identity=identity, tags={}
    )
    mlflow_runs.finish(mlflow, run_id, "FINISHED")
    found = mlflow.get_run(child)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"quality/auc": 0.75})
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert [key for key in keys if key.endswith("notes/hello.txt")]
    assert Path(mlflow.download_artifacts(child, "notes/hello.txt")).read_text() == "hello"


def test_prefects_server_on_postgres_keeps_a_flow_run(database: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://{HOST}:{port}/api"
    settings = Settings(home=tmp_path, prefect_api_url=url).resolved()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST]
    variables = {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect"}
    script = tmp_path / "small.py"
    script.write_text(FLOW)
    with started(
        "prefect-server", [*command, "--port", str(port)], f"{url}/health", settings, variables
    ):
        done = subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | environment(settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = httpx.post(f"{url}/flow_runs/filter", json={}).json()
        assert run["state_type"] == "COMPLETED"
    assert not list(tmp_path.rglob("prefect.db"))  # SQLite was not used


def test_each_service_has_a_database_and_a_user_and_not_the_others() -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed (Debian: postgresql-client)")
    with postgres() as address:
        user, password, place = re.split("[:@]", address, maxsplit=2)
        host, port = place.split(":")
        secrets = {"prefect": "of 'prefect'; --", "mlflow": "of-mlflow"}
        done = subprocess.run(
            [str(KUBERNETES / "databases.sh")],
            env=os.environ
            | {"POSTGRES_USER": user, "PGPASSWORD": password, "PGHOST": host, "PGPORT": port}
            | {f"{name.upper()}_DATABASE_PASSWORD": given for name, given in secrets.items()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

        def connect(who: str, database: str) -> Any:
            return psycopg2.connect(
                host=host, port=port, user=who, password=secrets[who], dbname=database
            )

        own = (("prefect", "prefect"), ("mlflow", "mlflow"), ("mlflow", "mlflow_auth"))
        for who, database in own:
            connection = connect(who, database)
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE mine (n int)")
            connection.close()
        others = (("prefect", "mlflow"), ("prefect", "mlflow_auth"), ("mlflow", "prefect"))
        for who, database in others:
            with pytest.raises(psycopg2.OperationalError, match="permission denied"):
                connect(who, database)
