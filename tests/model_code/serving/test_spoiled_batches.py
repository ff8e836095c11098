"""Requests of others that Triton puts into the same batch, on the real server."""

import asyncio
import threading
from collections import Counter

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from model_code.errors import ServingError
from model_code.serving import wire
from model_code.serving.aio import ATTEMPTS, AsyncTritonClient
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME

ONE = np.ones((1, 64, 16), np.float32)
CLIENTS = 8
PAUSE_S = 0.002


def bad_request(windows: int) -> service_pb2.ModelInferRequest:
    """One window whose batch dimension says another number."""
    message = wire.request(ONE, MODEL_NAME, None, "FP32")
    message.inputs[0].shape[:] = [windows, 64, 16]
    return message


async def beside_bad_requests(url: str, windows: int, spoiled: int, attempts: int) -> Counter[str]:
    """How sound requests were answered until some of them met a bad one."""
    found: Counter[str] = Counter()
    done = asyncio.Event()

    async def send_bad(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        while not done.is_set():
            try:
                await stub.ModelInfer(bad_request(windows), timeout=20)
            except grpc.RpcError as error:
                found["bad"] += 1
                found["spoiled"] += wire.is_spoiled(error)
            await asyncio.sleep(PAUSE_S)

    async def send_sound(client: AsyncTritonClient) -> None:
        while not done.is_set():
            try:
                answer = await client.ask(ONE, version=2, deadline_s=20.0)
                found["wrong"] += bool(np.abs(answer.logits_BC - right_BC).max() > 1e-4)
                found["answered"] += 1
            except ServingError as error:
                found["failed" if wire.SPOILED.search(error.what) else error.what] += 1
            if max(client.retried, found["failed"]) >= spoiled:
                done.set()

    async with (
        grpc.aio.insecure_channel(url, options=wire.OPTIONS) as channel,
        AsyncTritonClient(url, attempts=attempts) as client,
        asyncio.timeout(60),
    ):
        right_BC = await client.predict(ONE, version=2)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await asyncio.gather(send_bad(stub), *(send_sound(client) for _ in range(CLIENTS)))
    return found


def test_sound_requests_are_answered_beside_those_that_spoil_their_batches(url: str) -> None:
    for windows in (0, 2**32):
        found = asyncio.run(beside_bad_requests(url, windows, 20, ATTEMPTS))
        assert found["bad"] > 0
        assert found["answered"] > 0
        assert set(found) <= {"bad", "spoiled", "answered", "wrong"}, found
        assert found["wrong"] == 0


def test_without_another_attempt_the_server_fails_them(url: str) -> None:
    """The fault is the server's: if this fails, it was fixed, and the retry may go."""
    found = asyncio.run(beside_bad_requests(url, 0, 20, 1))
    assert found["failed"] >= 20
    assert found["wrong"] == 0


def test_the_synchronous_client_asks_again_too(url: str) -> None:
    done, bad = threading.Event(), [0]

    def send_bad() -> None:
        with grpc.insecure_channel(url, options=wire.OPTIONS) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not done.wait(PAUSE_S):
                try:
                    stub.ModelInfer(bad_request(0), timeout=20)
                except grpc.RpcError as error:
                    bad[0] += wire.is_spoiled(error)

    thread = threading.Thread(target=send_bad)
    thread.start()
    try:
        with TritonClient(url) as client:
            right_BC = client.predict(ONE)
            while bad[0] < 10:
                np.testing.assert_allclose(client.predict(ONE), right_BC, atol=1e-4)
    finally:
        done.set()
        thread.join()
