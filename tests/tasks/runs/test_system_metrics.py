"""System metrics of a run, and the thread that logs them."""

import threading
import time

from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.system_metrics import system_metrics


def monitors() -> list[threading.Thread]:
    return [found for found in threading.enumerate() if found.name == "SystemMetricsMonitor"]


def test_metrics_are_logged_while_the_block_runs_and_no_thread_stays(
    tmp_path, mlflow_template, capfd
) -> None:
    (tmp_path / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    settings = Settings(home=tmp_path).resolved()
    mlflow = mlflow_runs.client(settings)
    run_id = mlflow_runs.continue_or_start(
        mlflow, settings, name="night", identity={"k": "v"}, tags={}
    )

    def steps() -> list[int]:
        history = mlflow.get_metric_history(run_id, "system/cpu_utilization_percentage")
        return [point.step for point in history]

    logged: list[int] = []
    for _ in range(2):  # the second continues the first, as a resumed training does
        with system_metrics(settings.tracking_uri, run_id, interval_s=0.05):
            deadline = time.monotonic() + 60
            while len(steps()) <= len(logged) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(monitors()) == 1
        assert monitors() == []
        assert len(steps()) > len(logged)
        logged = steps()
    assert logged == list(range(len(logged)))
    assert "monitoring" not in capfd.readouterr().err
