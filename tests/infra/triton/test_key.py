"""The key of the model control: where it is kept, and what the real server refuses without it."""

import stat
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
from pydantic import SecretStr, ValidationError
from tritonclient.grpc import service_pb2, service_pb2_grpc

from infra.auth import client_environment
from infra.servers import ServerError
from infra.triton.key import control_key, options, server_key
from infra.triton.server import TritonServer
from model_code.errors import ServingError
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import INPUT_NAME, MODEL_NAME, Settings
from tests.support.serving import APPROVAL, logits, staged, windows

KEY = "a-key-of-sixteen-or-more"
GIANT = {
    "inputs": [{"name": INPUT_NAME, "datatype": "FP32", "shape": [10**8, 64, 16], "data": [1.0]}]
}


def test_the_first_server_makes_a_key_that_only_this_account_reads(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert control_key(settings) is None
    key = server_key(settings)
    assert len(key) == 48
    assert server_key(settings) == control_key(settings) == key
    path = tmp_path / "triton" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["key"]
    path.chmod(0o640)
    with pytest.raises(ServerError, match="others may read") as caught:
        control_key(settings)
    assert "remove the file" in caught.value.remedy


def test_the_setting_comes_before_the_file_and_reaches_other_processes(tmp_path: Path) -> None:
    server_key(Settings(home=tmp_path))
    settings = Settings(home=tmp_path, triton_key=SecretStr(KEY))
    assert control_key(settings) == server_key(settings) == KEY
    assert client_environment(settings) == {"TICKLINE_TRITON_KEY": KEY}
    assert KEY not in repr(settings)
    assert all(option.endswith(f":tickline-key={KEY}") for option in options(KEY))


@pytest.mark.parametrize("key", ["short", "has a space in the key", "with=sign,and:more----"])
def test_a_key_that_the_server_would_misread_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="16 to 128 letters"):
        Settings(triton_key=SecretStr(key))


@pytest.fixture
def served(live_triton: TritonServer, tmp_path: Path) -> TritonServer:
    """Version 1, loaded."""
    place = ServingRepository(live_triton.repository)
    place.publish(staged(tmp_path / "staging", 1), APPROVAL)
    place.arrange((1,))
    with live_triton.client() as client:
        client.load(versions=(1,))
    return live_triton


CONTROL: dict[str, Callable[[TritonClient], object]] = {
    "load": lambda client: client.load(),
    "load from bytes": lambda client: client.load_bytes("other", "{}", {}),
    "unload": lambda client: client.unload(),
    "index": lambda client: client.index(),
}


@pytest.mark.parametrize("key", [None, "not-the-key-of-the-server"])
@pytest.mark.parametrize("call", CONTROL)
def test_model_control_needs_the_key(call: str, key: str | None, served: TritonServer) -> None:
    with TritonClient(served.grpc_url, key) as client:
        with pytest.raises(ServingError, match="protocol is restricted") as caught:
            CONTROL[call](client)
        assert "TICKLINE_TRITON_KEY" in caught.value.remedy
        np.testing.assert_allclose(client.predict(windows()), logits(1), atol=1e-4)
        assert client.statistics().version == 1  # read only: open


def test_no_command_line_shows_the_key(served: TritonServer) -> None:
    server = psutil.Process(served.pid)
    launcher = server.parent()
    assert launcher is not None
    for process in (server, launcher):
        words = process.cmdline()
        assert any(word.startswith("--grpc-restricted-protocol=") for word in words)
        assert not any(served.key in word for word in words)


def test_shared_memory_trace_and_log_settings_need_the_key(served: TritonServer) -> None:
    with grpc.insecure_channel(served.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, message in (
            (stub.SystemSharedMemoryRegister, service_pb2.SystemSharedMemoryRegisterRequest()),
            (stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()),
            (stub.CudaSharedMemoryStatus, service_pb2.CudaSharedMemoryStatusRequest()),
            (stub.TraceSetting, service_pb2.TraceSettingRequest()),
            (stub.LogSettings, service_pb2.LogSettingsRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=10)
            assert "protocol is restricted" in (caught.value.details() or "")


@pytest.mark.parametrize(
    "path",
    [
        f"models/{MODEL_NAME}/infer",
        f"models/{MODEL_NAME}/generate",
        f"repository/models/{MODEL_NAME}/load",
        f"repository/models/{MODEL_NAME}/unload",
        "repository/index",
        "systemsharedmemory/region/r/register",
        "trace/setting",
        "logging",
    ],
)
def test_http_gives_health_and_no_inference(path: str, served: TritonServer) -> None:
    answer = httpx.post(f"{served.http_url}/v2/{path}", json=GIANT)
    assert (answer.status_code, "restricted" in answer.text) == (403, True)
    assert httpx.get(f"{served.http_url}/v2/health/ready").status_code == httpx.codes.OK
    with served.client() as client:
        assert client.versions() == [1]
        np.testing.assert_allclose(client.predict(windows()), logits(1), atol=1e-4)
