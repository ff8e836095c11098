"""A blend's ensemble in the real server: logits, refusals, times."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from infra.triton import ensemble
from infra.triton.ensemble import compare_with_single
from infra.triton.server import running
from model_code.errors import ExportError
from model_code.export.graph import PARITY_LIMIT
from model_code.repository.ensemble import ENSEMBLE_NAME, SUM_NAME, part_name
from model_code.serving.client import TritonClient
from model_code.settings import INPUT_NAME, MODEL_NAME, Settings
from tests.support.blends import VERSION, BlendRepository, windows

Tensors = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, triton_home: Path) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), triton=triton_home)


@pytest.fixture(scope="module")
def client(settings: Settings, blend_repository: BlendRepository) -> Iterator[TritonClient]:
    """Of a server that was asked to load the ensemble alone."""
    with (
        running(settings, blend_repository.root, models=(ENSEMBLE_NAME,)) as server,
        server.client() as client,
    ):
        yield client


def message(model: str, tensors: Tensors) -> service_pb2.ModelInferRequest:
    """A request without the client's checks."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor
    return service_pb2.ModelInferRequest(
        model_name=model,
        inputs=[
            tensor(name=name, datatype="FP32", shape=array.shape) for name, array in tensors.items()
        ],
        raw_input_contents=[array.tobytes() for array in tensors.values()],
    )


def ask_together(
    client: TritonClient, model: str, requests: Sequence[Tensors]
) -> list[NDArray[np.float32] | grpc.RpcError]:
    """Logits (B, 2) of each request, or its refusal; all are sent at once."""

    async def ask() -> list[Any]:
        async with grpc.aio.insecure_channel(client.url) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            calls = (infer(message(model, tensors), timeout=5) for tensors in requests)
            return await asyncio.gather(*calls, return_exceptions=True)

    return [
        found
        if isinstance(found, grpc.RpcError)
        else np.frombuffer(found.raw_output_contents[0], np.float32).reshape(-1, 2)
        for found in asyncio.run(ask())
    ]


def refused(found: object) -> bool:
    return (
        isinstance(found, grpc.RpcError)
        and found.code() == grpc.StatusCode.INVALID_ARGUMENT
        and "NaN or infinity" in found.details()
    )


@pytest.mark.parametrize("batch", [1, 2, 17, 64])
def test_its_logits_are_the_blends(
    batch: int, client: TritonClient, blend_repository: BlendRepository
) -> None:
    x_BTF = windows()[:batch]
    with torch.inference_mode():
        expected_BC = blend_repository.model(torch.from_numpy(x_BTF)).numpy()
    answer = client.ask(x_BTF, model=ENSEMBLE_NAME)
    assert answer.version == VERSION
    np.testing.assert_allclose(answer.logits_BC, expected_BC, PARITY_LIMIT, PARITY_LIMIT)


def test_the_parts_load_with_it_and_are_counted(
    client: TritonClient, blend_repository: BlendRepository
) -> None:
    assert not client.ready(MODEL_NAME)
    names = (*map(part_name, blend_repository.split), SUM_NAME)
    before = [client.statistics(name).inferences for name in names]
    client.predict(windows()[:5], model=ENSEMBLE_NAME)

    def counted() -> list[int]:
        after = [client.statistics(name).inferences for name in names]
        return [count - since for count, since in zip(after, before, strict=True)]

    until = time.monotonic() + 10  # Triton counts a step a moment after its answer
    while counted() != [5, 5, 5] and time.monotonic() < until:
        time.sleep(0.01)
    assert counted() == [5, 5, 5]


def test_the_first_part_answers_alone(
    client: TritonClient, blend_repository: BlendRepository
) -> None:
    part, x_BTF = blend_repository.split[0], windows()[:5]
    with torch.inference_mode():
        expected_BC = part.network(torch.from_numpy(x_BTF)).numpy()
    found_BC = client.predict(x_BTF, model=part_name(part))
    np.testing.assert_allclose(found_BC, expected_BC, PARITY_LIMIT, PARITY_LIMIT)


def test_a_window_that_is_not_finite_is_refused_and_its_batch_answered(
    client: TritonClient,
) -> None:
    x_NTF = windows()[:32].copy()
    expected_NC = client.predict(x_NTF, model=ENSEMBLE_NAME)
    x_NTF[::4, 63, 15] = np.nan
    before = client.statistics(SUM_NAME)
    found = ask_together(client, ENSEMBLE_NAME, [{INPUT_NAME: x_TF[None]} for x_TF in x_NTF])
    for index, one in enumerate(found):
        if index % 4 == 0:
            assert refused(one)
        else:
            assert not isinstance(one, grpc.RpcError)
            np.testing.assert_allclose(one[0], expected_NC[index], PARITY_LIMIT, PARITY_LIMIT)
    assert client.statistics(SUM_NAME).requests == before.requests + 24


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_the_sum_refuses_what_is_not_finite_in_any_input(
    index: int, value: float, client: TritonClient, blend_repository: BlendRepository
) -> None:
    names = [part.logits for part in blend_repository.split]
    rng = np.random.default_rng(6)
    requests = [
        {name: rng.normal(size=(rows, 2)).astype(np.float32) for name in names}
        for rows in (1, 3) * 8
    ]
    bad = requests[::3]
    for tensors in bad:
        tensors[names[index]][-1, 1] = value
    for number, (tensors, found) in enumerate(
        zip(requests, ask_together(client, SUM_NAME, requests), strict=True)
    ):
        if number % 3 == 0:
            assert refused(found)
            continue
        expected = sum(part.weight * tensors[part.logits] for part in blend_repository.split)
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def test_the_comparison_names_each_model_and_its_time(
    settings: Settings, blend_repository: BlendRepository
) -> None:
    one, other = blend_repository.split
    found = compare_with_single(
        settings, blend_repository.root, blend_repository.split, windows()[:70], rounds=5
    )
    assert found.windows == 70
    assert found.error <= PARITY_LIMIT
    rows = {row.model: row for row in found.times}
    parts = part_name(one), part_name(other)
    assert list(rows) == [*parts, SUM_NAME, ENSEMBLE_NAME, MODEL_NAME]
    assert [row.weight for row in found.times] == [one.weight, other.weight, None, None, None]
    assert all(row.server_ms > 0 for row in found.times)
    for name, row in rows.items():
        called = name in (ENSEMBLE_NAME, MODEL_NAME)
        assert (row.client_ms is not None) is called
        assert row.client_ms is None or row.client_ms > 0


class Differing:
    """A client to which the ensemble answers otherwise on some windows."""

    def predict(self, x_BTF: NDArray[np.float32], model: str = MODEL_NAME) -> NDArray[np.float32]:
        logits_BC = x_BTF[:, -1, :2].copy()
        if model == ENSEMBLE_NAME:
            logits_BC[:, 1] += self.gap
        return logits_BC

    def __init__(self, gap: float) -> None:
        self.gap = gap


def test_an_ensemble_that_differs_is_refused() -> None:
    x_NTF = windows()[:20]
    close, far = (cast("TritonClient", Differing(gap)) for gap in (1e-7, 1e-3))
    assert ensemble._error(close, x_NTF, 7) <= PARITY_LIMIT
    with pytest.raises(ExportError, match="on 20 of 20 windows at batch 7"):
        ensemble._error(far, x_NTF, 7)
    missing = cast("TritonClient", Differing(np.nan))
    with pytest.raises(ExportError, match="on 20 of 20 windows"):
        ensemble._error(missing, x_NTF, 7)
