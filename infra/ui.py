"""The pages of Prefect and MLflow on loopback, until Ctrl-C."""

import time
from collections.abc import Callable

from infra import auth
from infra.home.moved import relocate
from infra.servers import HOST, mlflow_command, prefect_command, started
from model_code.settings import Settings


def serve(
    settings: Settings, *, prefect_port: int, mlflow_port: int, say: Callable[[str], None]
) -> None:
    """Run Prefect's and MLflow's servers until Ctrl-C.

    Raises:
        ServerError: one of them does not start; the end of its log is in the message.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    relocate(settings)
    prefect, mlflow = prefect_command(prefect_port), mlflow_command(settings, mlflow_port)
    prefect_page, mlflow_page = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    secrets = auth.server_environment(settings)
    # used by the page's scripts
    api = {"PREFECT_SERVER_UI_API_URL": f"{prefect_page}/api"} | secrets
    say("starting both servers (up to half a minute)...")
    with (
        started("prefect-ui", prefect, f"{prefect_page}/api/health", settings, api),
        started("mlflow-ui", mlflow, f"{mlflow_page}/health", settings, secrets),
    ):
        say(f"Prefect  {prefect_page}   runs, stages, artefacts")
        say(f"MLflow   {mlflow_page}   metrics, curves, models")
        say("Ctrl-C stops both.")
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            say("stopping")
