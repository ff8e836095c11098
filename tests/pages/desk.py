"""Two nights, a promotion that waits for a decision, a failed night, and their pages' servers.

The ticks are generated. Prefect, MLflow and Triton are real, in a home folder of their own.
"""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from infra.live.monitoring import page
from infra.servers import HOST, free_port, free_ports, mlflow_command, prefect_command, started
from infra.triton.server import running
from infra.ui import mlflow_link, runs_link
from model_code.errors import DataError
from model_code.market.simulated import SimulatedStore
from model_code.settings import MlpSpec, NightlySpec, Settings, SplitSpec, TrainingSpec
from tasks.promotion.show_evidence import PAGE
from tasks.runs import mlflow_runs
from tests.support.cli import tickline
from tests.support.desk import EXCEPTION
from tests.support.flow import QUICK_BENCHMARK, parents, tiny
from tests.support.market import write_hive
from tests.support.observed import busy
from tests.support.policy import write_policy

SYMBOLS = ("SIMA.test", "SIMB.test")
DATES = tuple(dt.date(2024, 8, day) for day in range(5, 11))
FIRST, SECOND, BAD = DATES[3:]
BUSY = (SYMBOLS[0], DATES[1])  # twice as long as its other days
MINUTES = 1.0
ENGINES = ("onnxruntime-fp32", "openvino-fp32", "openvino-int8", "tensorrt-fp16")
GOALS = """
minimum_events: 1  # of a few hundred windows none tells a good model from a bad one
goals:
  - {name: every answer is finite, metric: non_finite, kind: threshold, maximum: 0}
  - {name: probabilities stay close to FP32, metric: max_abs_dp, kind: threshold, maximum: 1.0e-5}
  - {name: answers within 1 s, metric: p99_ms, kind: threshold, maximum: 1000}
  - {name: AUC no worse than gradient boosting, metric: auc, kind: min-improvement, over: boosting,
     limit: -0.2, unit: absolute, confidence: 0.95}
  - {name: AUC no worse than the champion, metric: auc, kind: min-improvement, limit: -0.2,
     unit: absolute, confidence: 0.95}
"""


class Desk(NamedTuple):
    """What the pages show, and where they are.

    Attributes:
        settings: of the home folder.
        variables: environment of commands in it.
        prefect: address of Prefect's pages.
        mlflow: address of MLflow's pages.
        night: the second night's run.
        failed: the failed night's run.
        waiting: the promotion's run, which waits for a decision.
        nights: MLflow's runs of the two nights that ended well, the older first.
        promotion: MLflow's run of the promotion.
        artifacts: ids of Prefect's newest artifacts, by key.
        files: Tickline's own pages, by name.
        live: address of a live service's page.
    """

    settings: Settings
    variables: dict[str, str]
    prefect: str
    mlflow: str
    night: FlowRun
    failed: FlowRun
    waiting: FlowRun
    nights: tuple[Run, ...]
    promotion: Run
    artifacts: dict[str, UUID]
    files: dict[str, Path]
    live: str

    @property
    def runs_page(self) -> str:
        """Address of MLflow's list of nights."""
        return runs_link(self.mlflow, self.nights[0].info.experiment_id)

    def run_page(self, run: Run, more: str = "") -> str:
        """Address of an MLflow run, or of a page below it."""
        path = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}{more}"
        return mlflow_link(self.mlflow, path)


def market(folder: Path) -> str:
    """Write a Hive store of six days; one day has far more rows, the newest day is bad.

    Its ticks are those of the simulated market, whose own store could not be promoted.
    """
    for number, date in enumerate(DATES):
        for instrument, symbol in enumerate(SYMBOLS):
            minutes = 2 * MINUTES if (symbol, date) == BUSY else MINUTES
            store = SimulatedStore(f"simulated:?instruments=2&days={len(DATES)}&minutes={minutes}")
            day = store.catalog()[len(SYMBOLS) * number + instrument]
            table = _renamed(store.read(day), symbol, date - day.date)
            write_hive(folder, _crossed(table) if date == BAD else table, symbol, date)
    return str(folder)


def _renamed(table: pa.Table, symbol: str, later: dt.timedelta) -> pa.Table:
    """The same ticks, of another instrument and date."""
    moved = pc.add(table["timestamp"], pa.scalar(later, pa.duration("ns")))
    names = pa.array([symbol] * len(table), table.schema.field("symbol").type)
    columns = {"timestamp": moved, "symbol": names}
    return pa.table([columns.get(name, table[name]) for name in table.column_names], table.schema)


def _crossed(table: pa.Table) -> pa.Table:
    """Every twentieth quote is crossed: bid above ask."""
    bid = table["bid_price"].to_numpy().copy()
    bid[::20] = table["ask_price"].to_numpy()[::20] + 0.05
    column = table.schema.get_field_index("bid_price")
    return table.set_column(column, table.schema.field(column), pa.array(bid))


def spec(store: str, goals: Path, test_date: dt.date, epochs: int) -> NightlySpec:
    """A nightly of half a minute."""
    return tiny(
        store,
        goals=str(goals),
        test_date=str(test_date),
        split=SplitSpec(train_windows=4096, validation_windows=1024, test_windows=2048),
        network=MlpSpec(),
        training=TrainingSpec(epochs=epochs, batch_size=64, learning_rate=1e-3),
        benchmark=QUICK_BENCHMARK.model_copy(update={"engines": ENGINES, "requests": 100}),
    )


@contextmanager
def open_desk(folder: Path) -> Iterator[Desk]:
    """Play the nights and the promotions, then serve their pages for the length of the block."""
    home = Settings(home=folder / "home").resolved()
    home.home.mkdir()
    prefect_port, mlflow_port = free_ports(2)
    prefect, mlflow = (f"http://{HOST}:{port}" for port in (prefect_port, mlflow_port))
    pages = {"PREFECT_SERVER_UI_API_URL": f"{prefect}/api", "PREFECT_UI_URL": prefect}
    with (
        running(home, home.serving_repository) as triton,
        started("prefect", prefect_command(prefect_port), f"{prefect}/api/health", home, pages),
        started("mlflow", mlflow_command(home, mlflow_port), f"{mlflow}/health", home),
        _live(home) as live,
    ):
        variables = {
            "TICKLINE_HOME": str(home.home),
            "TICKLINE_PREFECT_API_URL": f"{prefect}/api",
            "TICKLINE_MLFLOW_UI_URL": mlflow,
            "TICKLINE_TRITON_URL": triton.grpc_url,
            "TICKLINE_TRITON_KEY": triton.key,
        }
        with mock.patch.dict(os.environ, variables):
            settings = Settings().resolved()
            _play(settings, folder)
            tickline("dashboard", "--out", folder / "dashboard.html")
        with temporary_settings({PREFECT_API_URL: f"{prefect}/api"}):
            runs, artifacts = _flow_runs(), _artifacts()
        failed, waiting = runs[StateType.FAILED], runs[StateType.PAUSED]
        nights = tuple(run for run in parents(settings) if run.info.status == "FINISHED")
        promotion = _run_of(settings, mlflow_runs.PROMOTION_TAG, waiting)
        yield Desk(
            settings=settings,
            variables=variables,
            prefect=prefect,
            mlflow=mlflow,
            night=runs[StateType.COMPLETED],
            failed=failed,
            waiting=waiting,
            nights=nights,
            promotion=promotion,
            artifacts=artifacts,
            files={
                "nights": folder / "dashboard.html",
                "benchmark": _file(settings, nights[-1], "benchmark/benchmark.html"),
                "validation": _file(settings, nights[-1], "validation/report.html"),
                "evidence": _file(settings, promotion, PAGE),
            },
            live=live,
        )


@contextmanager
def _live(settings: Settings) -> Iterator[str]:
    """The address of a live service's page; real decisions, without a broker."""
    port = free_port()
    stop = page.serve(busy().view(), settings, port)
    yield f"http://{HOST}:{port}"
    stop()


def _play(settings: Settings, folder: Path) -> None:
    """Run a night, promote it, run another, start its promotion, run a night on bad ticks."""
    write_policy(settings)
    store, goals = market(folder / "store"), folder / "goals.yaml"
    goals.write_text(GOALS)
    nights = []
    for date, epochs in ((FIRST, 1), (SECOND, 3), (BAD, 3)):
        nights.append(folder / f"night-{date}.json")
        nights[-1].write_text(spec(store, goals, date, epochs).model_dump_json())
    # the other tests' setting is off: a log record must not outlive its server
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
        tickline("nightly", "--spec", nights[0])
        tickline("promote", "--version", 1, "--started-by", "bob")
        terms = ("--owner", EXCEPTION["owner"], "--expires", EXCEPTION["expires"])
        reason = "no baseline, but all other goals are met"
        tickline("approve", 1, "--reviewer", "ada", "--reason", reason, *terms)
        tickline("nightly", "--spec", nights[1])
        tickline("promote", "--version", 2, "--started-by", "bob")
        with pytest.raises(DataError):
            tickline("nightly", "--spec", nights[2])


def _flow_runs() -> dict[StateType, FlowRun]:
    """The newest run in each state."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    by_age = sorted(runs, key=lambda run: str(run.created))
    return {run.state.type: run for run in by_age if run.state}


def _artifacts() -> dict[str, UUID]:
    """The newest artifact of each key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    return {str(one.key): one.id for one in sorted(found, key=lambda one: str(one.created))}


def _run_of(settings: Settings, tag: str, flow_run: FlowRun) -> Run:
    """MLflow's run of a flow run."""
    mlflow = MlflowClient(settings.tracking_uri)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    (found,) = mlflow.search_runs([experiment], f"tags.`{tag}` = '{flow_run.id}'")
    return found


def _file(settings: Settings, run: Run, path: str) -> Path:
    """An artefact of an MLflow run, as a file."""
    client = MlflowClient(settings.tracking_uri)
    return Path(client.download_artifacts(run.info.run_id, path)).resolve()
