"""The registered model of a real small night, as people meet it: figures, data, predictions."""

import asyncio
import json
from pathlib import Path

import httpx
import mlflow
import numpy as np
import onnxruntime
import pytest
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.tracking import MlflowClient

from model_code.market.store import open_market
from model_code.settings import INPUT_NAME, MODEL_NAME, OUTPUT_NAME, Settings
from tasks.runs.tick_source import TickSource
from tests.support.benchmark import row_of
from tests.support.flow import EASY, SIMULATED, dataset_inputs, nightly_outcome, tiny


async def invoke(model: PyFuncModel, payload: object) -> httpx.Response:
    """What `mlflow models serve` answers; its application runs here."""
    transport = httpx.ASGITransport(scoring_server.init(model))
    async with httpx.AsyncClient(transport=transport, base_url="http://served") as server:
        return await server.post("/invocations", json=payload)


def test_a_registered_version_has_figures_data_and_an_example_and_predicts(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "goals.yaml").write_text(EASY)
    spec = tiny(SIMULATED, goals=str(tmp_path / "goals.yaml"))
    outcome = nightly_outcome(spec)
    client = MlflowClient(home.tracking_uri)
    mlflow.set_tracking_uri(home.tracking_uri)
    version = client.get_model_version(MODEL_NAME, "1")
    model_id = str(version.source).removeprefix("models:/")

    # figures, parameters and data on the version's page
    logged = client.get_logged_model(model_id)
    row = row_of(outcome.benchmark, outcome.engine)
    assert logged.metrics is not None
    figures = {metric.key: metric.value for metric in logged.metrics}
    assert figures["quality/auc"] == pytest.approx(row.quality.auc)
    assert figures["latency/p99_ms"] == pytest.approx(row.p99_ms)
    judged = {metric.dataset_name for metric in logged.metrics if metric.key == "quality/auc"}
    assert judged == {"test 2000-01-04"}
    assert logged.params["learning_rate"] == str(spec.training.learning_rate)
    assert logged.params["d_model"] == "16"
    assert logged.params["network"] == "conv-transformer"
    assert logged.params["engine"] == outcome.engine

    assert figures["baseline/auc"] == pytest.approx(outcome.baseline["auc"])

    # its run is the night, whose ticks reload
    assert version.run_id == outcome.mlflow_run_id
    store = open_market(SIMULATED)
    for given in dataset_inputs(client.get_run(outcome.mlflow_run_id)):
        source = mlflow.data.get_source(given)
        assert isinstance(source, TickSource)
        (day,) = source.days
        expected = next(
            found for found in store.catalog() if (str(found.date), found.symbol)
            == (day.date, day.symbol)
        )  # fmt: skip
        assert source.load().equals(store.read(expected))
        assert json.loads(given.dataset.source)["uri"] == store.uri

    # logits equal ONNX Runtime's: in Python, and by the protocol of `mlflow models serve`
    model = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}/1")
    windows_BTF = np.array(model.input_example)
    assert windows_BTF.shape == (2, 64, 16)
    assert windows_BTF.dtype == np.float32
    assert not (windows_BTF[0] == windows_BTF[1]).all()
    session = onnxruntime.InferenceSession(
        mlflow.onnx.load_model(f"models:/{MODEL_NAME}/1").SerializeToString()
    )
    (logits_BC,) = session.run([OUTPUT_NAME], {INPUT_NAME: windows_BTF})
    assert logits_BC.shape == (2, 2)
    np.testing.assert_array_equal(model.predict(windows_BTF)[OUTPUT_NAME], logits_BC)
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which `init` sets for good
    answer = asyncio.run(invoke(model, {"inputs": windows_BTF.tolist()}))
    assert answer.status_code == 200, answer.text
    served_BC = np.array(answer.json()["predictions"][OUTPUT_NAME], np.float32)
    np.testing.assert_allclose(served_BC, logits_BC, rtol=1e-6)
