"""What hosts share: Postgres, an S3-compatible server, a Prefect and an MLflow server on one host.

The S3 server is moto's: it speaks the protocol and keeps objects only as long as it runs.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from flows.demos.hosts import Host
from flows.demos.postgres import postgres
from infra.servers import free_ports, mlflow_command, prefect_command, started
from model_code.errors import ConfigError
from model_code.settings import Settings

STORE, ARTIFACTS = "tickline", "mlflow"  # buckets


@dataclass(frozen=True)
class Shared:
    """Addresses of the servers.

    Attributes:
        prefect: URL of Prefect's API.
        mlflow: URL of MLflow's server.
        s3: URL of the S3-compatible server.
        store: `TICKLINE_STORE`.
    """

    prefect: str
    mlflow: str
    s3: str
    store: str = f"s3://{STORE}/desk"

    def settings(self, home: Path) -> Settings:
        """Settings of a home that uses these servers."""
        return Settings(
            home=home,
            prefect_api_url=self.prefect,
            mlflow_tracking_uri=self.mlflow,
            store=self.store,
        ).resolved()


@contextmanager
def shared_servers(host: Host, home: Path) -> Iterator[Shared]:
    """Run the servers on a host during the block; their logs are in `home`.

    Raises:
        ConfigError: Postgres or moto is not installed.
        ServerError: a server does not start.
    """
    if find_spec("moto") is None:
        raise ConfigError("moto is not installed", remedy="make setup")
    prefect_port, mlflow_port, s3_port = free_ports(3)
    prefect, mlflow, s3 = (
        f"http://{host.address}:{port}" for port in (prefect_port, mlflow_port, s3_port)
    )
    with ExitStack() as stack:
        database = stack.enter_context(postgres(("prefect", "mlflow"), host))
        settings = Settings(
            home=home, mlflow_tracking_uri=f"postgresql+psycopg2://{database}/mlflow"
        ).resolved()
        own = s3_environment(s3) | {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect"
        }

        def serve(name: str, command: list[str], health: str) -> None:
            stack.enter_context(started(name, host.command(*command), health, settings, own))

        module = "flows.demos.s3_server"
        command = [sys.executable, "-m", module, host.address, str(s3_port)]
        serve("s3", command, f"{s3}/moto-api/")
        for bucket in (STORE, ARTIFACTS):
            httpx.put(f"{s3}/{bucket}").raise_for_status()
        serve("prefect", prefect_command(prefect_port, host.address), f"{prefect}/api/health")
        tracking = mlflow_command(settings, mlflow_port, host.address)
        tracking += ["--serve-artifacts", "--artifacts-destination", f"s3://{ARTIFACTS}"]
        tracking += ["--allowed-hosts", f"{host.address}:{mlflow_port}"]
        serve("mlflow", tracking, f"{mlflow}/health")
        yield Shared(prefect=f"{prefect}/api", mlflow=mlflow, s3=s3)


def s3_environment(url: str) -> dict[str, str]:
    """Variables that name an S3-compatible server: path-style addresses, plain HTTP."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }
