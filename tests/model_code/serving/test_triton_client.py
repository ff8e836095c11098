import asyncio
import time

import numpy as np
import pytest

from infra.servers import HOST, free_port
from model_code.errors import ServingError
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.client import TritonClient
from model_code.serving.predictor import TritonPredictor
from model_code.settings import MODEL_NAME


@pytest.fixture
def client(triton):
    with triton.client() as client:
        yield client


def test_server_and_versions_are_read(client):
    assert client.live()
    assert client.server().startswith("triton 2.")
    assert client.ready()
    assert client.ready(MODEL_NAME, 1)
    assert not client.ready(MODEL_NAME, 3)
    assert not client.ready("another")
    assert client.versions() == [1, 2]
    assert {(state.model, state.version) for state in client.index()} == {
        (MODEL_NAME, 1),
        (MODEL_NAME, 2),
    }


def test_the_newest_version_responds_unless_another_is_pinned(client, x_NTF, expected):
    assert client.ask(x_NTF[:3]).version == 2
    for version in (1, 2):
        answer = client.ask(x_NTF, version=version)
        assert answer.version == version
        np.testing.assert_allclose(answer.logits_BC, expected[version], atol=1e-4)
    predictor = TritonPredictor(client, MODEL_NAME, 1)
    np.testing.assert_array_equal(predictor.predict(x_NTF), client.predict(x_NTF, version=1))


def test_the_servers_counts_are_read(client, x_NTF):
    before = client.statistics(version=1)
    client.predict(x_NTF, version=1)
    client.predict(x_NTF[:4], version=1)
    after = client.statistics(version=1)
    end = time.monotonic() + 20
    while after.requests < before.requests + 2 and time.monotonic() < end:
        after = client.statistics(version=1)  # the server counts after it has responded
    assert after.version == 1
    assert after.requests - before.requests == 2
    assert after.inferences - before.inferences == 68
    assert after.executions - before.executions == 2
    assert after.compute_infer_ns > before.compute_infer_ns
    parts = after.queue_ns + after.compute_infer_ns - before.queue_ns - before.compute_infer_ns
    assert 0 < parts <= after.total_ns - before.total_ns


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((1, 64, 15), np.float32), "have shape"),
        (np.zeros((64, 16), np.float32), "have shape"),
        (np.zeros((0, 64, 16), np.float32), "0 windows"),
        (np.zeros((65, 64, 16), np.float32), "65 windows"),
        (np.zeros((1, 64, 16), np.float64), "float64"),
        (np.full((1, 64, 16), np.nan, np.float32), "NaN or infinity"),
        (np.full((1, 64, 16), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_bad_windows_are_not_sent(client, bad, said):
    before = client.statistics().failed
    with pytest.raises(ServingError, match=said):
        client.predict(bad)
    assert client.statistics().failed == before


def test_strided_windows_are_sent_correctly(client, x_NTF):
    strided = np.asfortranarray(x_NTF)[::2]
    np.testing.assert_array_equal(client.predict(strided), client.predict(x_NTF[::2]))


def test_unknown_models_and_versions_are_reported(client, x_NTF):
    with pytest.raises(ServingError, match="NOT_FOUND"):
        client.predict(x_NTF, version=9)
    with pytest.raises(ServingError, match="NOT_FOUND"):
        client.predict(x_NTF, model="another")
    with pytest.raises(ServingError, match="does not load"):
        client.load("another")
    with pytest.raises(ServingError):
        client.statistics("another")


def test_a_proxy_of_the_environment_is_not_asked(url, x_NTF, monkeypatch):
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:{free_port()}")  # nobody listens
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def ask():
        async with AsyncTritonClient(url, attempts=1) as client:
            return await client.predict(x_NTF)

    with TritonClient(url) as client:
        np.testing.assert_array_equal(client.predict(x_NTF), asyncio.run(ask()))


def test_at_an_http_port_the_remedy_names_the_grpc_port(triton, x_NTF):
    with TritonClient(triton.http_url.removeprefix("http://")) as client:
        with pytest.raises(ServingError) as caught:
            client.predict(x_NTF)
        assert "this its gRPC port" in caught.value.remedy


def test_an_unreachable_address_is_an_error_with_a_remedy(x_NTF):
    with TritonClient(f"{HOST}:{free_port()}") as client:
        assert not client.live()
        assert not client.ready()
        with pytest.raises(ServingError, match="UNAVAILABLE") as caught:
            client.predict(x_NTF)
        assert "tickline triton status" in caught.value.remedy
