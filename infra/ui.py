"""The pages of Prefect and MLflow: links into MLflow, and both on loopback until Ctrl-C."""

import time
from collections.abc import Callable
from urllib.parse import urlencode

import httpx

from infra import auth
from infra.home.moved import relocate
from infra.servers import HOST, mlflow_command, prefect_command, started
from model_code.settings import Settings

HERE = "."  # links within MLflow's pages, wherever those are served
NIGHTS_VIEW = "nights"  # key of the columns of MLflow's run list
VIEW_TAG = f"mlflow.sharedViewState.{NIGHTS_VIEW}"  # of an experiment; MLflow's page reads it


def mlflow_link(page: str, path: str, **query: str) -> str:
    """Link to one of MLflow's pages, in its view of model training.

    Without the parameter a first visit shows the view of traces and judges.

    Args:
        page: address of MLflow's pages, `infra.stack_state.mlflow_page`; or `HERE`.
        path: for example `experiments/1/runs/RUN_ID`.
        query: more parameters of the page.
    """
    return f"{page}/#/{path}?{urlencode({'workflowType': 'machine_learning'} | query)}"


def runs_link(page: str, experiment: str) -> str:
    """Link to an experiment's run list with the columns that `VIEW_TAG` has."""
    return mlflow_link(page, f"experiments/{experiment}/runs", viewStateShareKey=NIGHTS_VIEW)


def nights_link(settings: Settings, page: str) -> str:
    """Link to the nights in MLflow; to its list of experiments before the first night.

    Args:
        settings: name the experiment.
        page: of a running server.
    """
    password = settings.auth_password
    try:
        found = httpx.get(
            f"{page}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": settings.mlflow_experiment},
            auth=(settings.auth_username, password.get_secret_value()) if password else None,
            timeout=5,
        )
        known = found.raise_for_status().json()["experiment"]
    except (httpx.HTTPError, ValueError, KeyError):
        return mlflow_link(page, "experiments")
    if VIEW_TAG not in {tag["key"] for tag in known.get("tags", ())}:  # of an earlier version
        return mlflow_link(page, f"experiments/{known['experiment_id']}/runs")
    return runs_link(page, known["experiment_id"])


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
        say(f"MLflow   {nights_link(settings, mlflow_page)}   metrics, curves, models")
        say("Ctrl-C stops both.")
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            say("stopping")
