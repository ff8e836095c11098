"""The real server with the Python-based backends: logits, refusals, swaps, faults."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from infra.triton import shared_memory
from infra.triton.engine import add_version, serving_engine
from infra.triton.server import TritonServer, running
from model_code.engines.protocol import EngineSource, Predictor
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import ServingError
from model_code.export.graph import export_onnx
from model_code.models import network
from model_code.repository.requests import GoldenSet
from model_code.serving import golden
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.client import TritonClient
from model_code.serving.load import closed_loop
from model_code.settings import INPUT_NAME, MODEL_NAME, NetworkSpec, Settings

SPEC = NetworkSpec(d_model=16, heads=2, layers=2, feed_forward=32, dropout=0.0)
SERVED = ("onnxruntime-fp32", "openvino-fp32")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, triton_home: Path) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), triton=triton_home)


@pytest.fixture(scope="module", name="x_NTF")
def windows() -> NDArray[np.float32]:
    return np.random.default_rng(4).normal(0.5, 2.0, (64, 64, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def engines(
    tmp_path_factory: pytest.TempPathFactory, x_NTF: NDArray[np.float32]
) -> dict[str, Path]:
    """Folders of both served engines, and of a second network's ("other")."""
    root = tmp_path_factory.mktemp("engines")
    folders = {}
    for seed, names in ((1, SERVED), (2, ("onnxruntime-fp32",))):
        torch.manual_seed(seed)
        model = network.FinancialPredictor(SPEC).eval()
        model.fit_standardisation(x_NTF.reshape(-1, 16))
        home = root / str(seed)
        home.mkdir()
        network.save(model, home / "model.pt")
        export_onnx(model, x_NTF[:8], home / "model.onnx")
        source = EngineSource(home / "model.pt", home / "model.onnx", home / "model.ts")
        for name in names:
            folder = folders["other" if seed == 2 else name] = home / name
            ENGINES[name].build(source, folder)
    return folders


@pytest.fixture(scope="module", params=SERVED)
def served(
    request: pytest.FixtureRequest, settings: Settings, engines: dict[str, Path]
) -> Iterator[tuple[TritonClient, Predictor]]:
    folder = engines[request.param]
    with (
        serving_engine(settings, folder, EngineSidecar.load(folder)) as server,
        server.client() as client,
    ):
        yield client, ENGINES[request.param].load(folder)


@pytest.fixture
def swapped(
    settings: Settings, engines: dict[str, Path], tmp_path: Path
) -> Iterator[tuple[TritonServer, TritonClient, Path]]:
    """A server of a repository with version 1, for tests that change it."""
    put(tmp_path, 1, engines["onnxruntime-fp32"])
    with (
        running(settings, tmp_path, models=(MODEL_NAME,)) as server,
        server.client() as client,
    ):
        yield server, client, tmp_path


def put(repository: Path, version: int, folder: Path) -> Path:
    return add_version(repository, version, folder, EngineSidecar.load(folder))


def raw(
    client: TritonClient, data: bytes, shape: tuple[int, ...], dtype: str = "FP32"
) -> service_pb2.ModelInferResponse:
    """Send a request without the client's checks."""
    message = service_pb2.ModelInferRequest(
        model_name=MODEL_NAME,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=INPUT_NAME, datatype=dtype, shape=shape
            )
        ],
        raw_input_contents=[data],
    )
    with grpc.insecure_channel(client.url) as channel:
        return service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10)


@pytest.mark.parametrize("batch", [1, 2, 8, 17, 64])
def test_logits_are_the_librarys_bit_for_bit(
    batch: int, served: tuple[TritonClient, Predictor], x_NTF: NDArray[np.float32]
) -> None:
    client, direct = served
    x_BTF = x_NTF[:batch]
    np.testing.assert_array_equal(client.predict(x_BTF), direct.predict(x_BTF))


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 64, 15), "FP32", "unexpected shape"),
        ((64, 16), "FP32", "unexpected shape"),
        ((65, 64, 16), "FP32", "batch-size must be <= 64"),
        ((1, 64, 16), "FP64", "data-type"),
    ],
)
def test_wrong_shapes_and_types_are_refused_and_the_server_keeps_running(
    shape: tuple[int, ...],
    dtype: str,
    said: str,
    served: tuple[TritonClient, Predictor],
    x_NTF: NDArray[np.float32],
) -> None:
    client, direct = served
    size = int(np.prod(shape)) * (8 if dtype == "FP64" else 4)
    with pytest.raises(grpc.RpcError) as caught:
        raw(client, bytes(size), shape, dtype)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert said in caught.value.details()
    np.testing.assert_array_equal(client.predict(x_NTF[:1]), direct.predict(x_NTF[:1]))


@pytest.mark.parametrize("batch", [0, 2**32, 2**33])
def test_a_batch_dimension_that_the_server_cuts_to_nothing_is_refused(
    batch: int, served: tuple[TritonClient, Predictor], x_NTF: NDArray[np.float32]
) -> None:
    client, direct = served
    with pytest.raises(grpc.RpcError) as caught:
        raw(client, x_NTF[:1].tobytes(), (batch, 64, 16))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected (batch, 64, 16)" in caught.value.details()
    np.testing.assert_array_equal(client.predict(x_NTF[:1]), direct.predict(x_NTF[:1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_windows_that_are_not_finite_are_refused_by_the_server(
    value: float, served: tuple[TritonClient, Predictor], x_NTF: NDArray[np.float32]
) -> None:
    client, direct = served
    bad = x_NTF[:2].copy()
    bad[1, 63, 15] = value
    with pytest.raises(grpc.RpcError) as caught:
        raw(client, bad.tobytes(), bad.shape)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "NaN or infinity" in caught.value.details()
    np.testing.assert_array_equal(client.predict(x_NTF[:1]), direct.predict(x_NTF[:1]))


def test_a_bad_request_does_not_affect_its_batch(
    served: tuple[TritonClient, Predictor], x_NTF: NDArray[np.float32]
) -> None:
    client, direct = served
    expected_NC = direct.predict(x_NTF)
    before = client.statistics()

    async def ask() -> list[service_pb2.ModelInferResponse | BaseException]:
        async with grpc.aio.insecure_channel(client.url) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            messages = []
            for index in range(64):
                x_TF = x_NTF[index] if index % 4 else np.full_like(x_NTF[index], np.nan)
                tensor = service_pb2.ModelInferRequest.InferInputTensor(
                    name=INPUT_NAME, datatype="FP32", shape=(1, 64, 16)
                )
                messages.append(
                    service_pb2.ModelInferRequest(
                        model_name=MODEL_NAME, inputs=[tensor], raw_input_contents=[x_TF.tobytes()]
                    )
                )
            calls = (infer(message, timeout=30) for message in messages)
            return await asyncio.gather(*calls, return_exceptions=True)

    for index, answer in enumerate(asyncio.run(ask())):
        if index % 4 == 0:
            assert isinstance(answer, grpc.RpcError)
            assert "NaN or infinity" in (answer.details() or "")
        else:
            assert isinstance(answer, service_pb2.ModelInferResponse)
            logits_C = np.frombuffer(answer.raw_output_contents[0], np.float32)
            np.testing.assert_allclose(logits_C, expected_NC[index], atol=1e-5)
    after = client.statistics()
    assert after.executions - before.executions < 64, "the server did not batch"


def test_a_new_version_takes_over_under_load_without_a_wrong_response(
    swapped: tuple[TritonServer, TritonClient, Path],
    engines: dict[str, Path],
    x_NTF: NDArray[np.float32],
) -> None:
    server, client, repository = swapped
    folders = {1: engines["onnxruntime-fp32"], 2: engines["other"]}
    predict = {
        version: ENGINES["onnxruntime-fp32"].load(f).predict for version, f in folders.items()
    }
    expected = {version: run(x_NTF) for version, run in predict.items()}
    assert np.abs(expected[1] - expected[2]).min() > 1e-3, "the versions must differ"

    async def swap() -> None:
        put(repository, 2, folders[2])
        await asyncio.to_thread(client.load, MODEL_NAME, (1, 2))

    async def both() -> object:
        load = asyncio.to_thread(
            closed_loop, server.grpc_url, x_NTF, concurrency=4, requests=2000, expected=expected
        )
        found, _ = await asyncio.gather(load, swap())
        return found

    found = asyncio.run(both())
    assert (found.requests, found.failed, found.wrong) == (2000, 0, 0)  # type: ignore[attr-defined]
    assert client.versions() == [1, 2]
    assert client.ask(x_NTF[:1]).version == 2, "an answer of the old version after load returned"
    np.testing.assert_allclose(client.predict(x_NTF, version=1), expected[1], atol=1e-5)


def test_a_broken_new_version_does_not_load_and_the_old_one_keeps_serving(
    swapped: tuple[TritonServer, TritonClient, Path],
    engines: dict[str, Path],
    x_NTF: NDArray[np.float32],
) -> None:
    server, client, repository = swapped
    before_BC = client.predict(x_NTF)
    with pytest.raises(ServingError, match="loaded without version 9"):
        client.load(versions=(9,))
    broken = put(repository, 2, engines["other"]) / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(ServingError, match="does not load"):
        client.load()
    assert client.versions() == [1]
    np.testing.assert_allclose(client.predict(x_NTF), before_BC, atol=1e-5)
    assert "model.onnx" in server.log.read_text(errors="replace")


def test_a_killed_process_is_detected_by_golden_requests_and_reloaded(
    swapped: tuple[TritonServer, TritonClient, Path],
    engines: dict[str, Path],
    x_NTF: NDArray[np.float32],
) -> None:
    server, client, _ = swapped
    direct = ENGINES["onnxruntime-fp32"].load(engines["onnxruntime-fp32"])
    recorded = GoldenSet.record(direct.predict, x_NTF, 1e-5)
    golden.prove(client, recorded, version=1)
    stubs = [
        child
        for child in psutil.Process(server.pid).children(recursive=True)
        if "python_backend" in child.name()
    ]
    assert len(stubs) == 1
    stubs[0].kill()
    assert client.ready(), "readiness is not reliable: hence the golden requests"
    with pytest.raises(ServingError, match="not healthy"):
        golden.prove(client, recorded)
    golden.reload(client)
    golden.prove(client, recorded, version=1)


def test_an_asynchronous_client_waits_for_a_dead_process_to_be_replaced(
    settings: Settings, engines: dict[str, Path], x_NTF: NDArray[np.float32]
) -> None:
    folder = engines["onnxruntime-fp32"]

    async def ask(url: str, attempts: int) -> NDArray[np.float32]:
        async with AsyncTritonClient(url, attempts=attempts) as asking:
            return await asking.predict(x_NTF[:1], deadline_s=30.0)

    with (
        serving_engine(settings, folder, EngineSidecar.load(folder)) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        expected_BC = client.predict(x_NTF[:1])
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        with pytest.raises(ServingError, match="not healthy"):
            asyncio.run(ask(server.grpc_url, 1))
        answer = pool.submit(asyncio.run, ask(server.grpc_url, 1000))
        (server.repository / MODEL_NAME / "1" / "model.onnx").touch()  # as `golden.revive`
        client.load()
        np.testing.assert_array_equal(answer.result(), expected_BC)


def test_the_server_ends_with_the_block_and_leaves_nothing(
    settings: Settings, engines: dict[str, Path], x_NTF: NDArray[np.float32]
) -> None:
    folder = engines["openvino-fp32"]
    with serving_engine(settings, folder, EngineSidecar.load(folder)) as server:
        region = shared_memory.REGION.format(port=server.grpc_url.rpartition(":")[2])
        assert list(shared_memory.FOLDER.glob(f"{region}*"))
        repository = server.repository
    assert not psutil.pid_exists(server.pid)
    assert not list(shared_memory.FOLDER.glob(f"{region}*"))
    assert not repository.exists()
    with server.client() as client:
        assert not client.live()
        with pytest.raises(ServingError, match="UNAVAILABLE"):
            client.predict(x_NTF[:1])


def test_a_model_that_does_not_load_stops_its_server(settings: Settings, tmp_path: Path) -> None:
    with (
        pytest.raises(ServingError, match="does not load"),
        running(settings, tmp_path, models=(MODEL_NAME,)),
    ):
        raise AssertionError("it must not get here")
