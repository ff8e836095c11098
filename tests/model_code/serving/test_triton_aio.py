import asyncio

import numpy as np
import pytest

from infra.servers import HOST, free_port
from model_code.errors import ServingError
from model_code.serving.aio import AsyncTritonClient
from model_code.serving.wire import Answer


def test_concurrent_requests_get_their_own_responses(url, x_NTF, expected):
    async def ask():
        async with AsyncTritonClient(url) as client:
            return await asyncio.gather(
                *(client.predict(x_NTF[i : i + 1]) for i in range(len(x_NTF)))
            )

    np.testing.assert_allclose(np.concatenate(asyncio.run(ask())), expected[2], atol=1e-4)


def test_a_version_is_pinned_by_client_or_call(url, x_NTF):
    async def ask():
        async with AsyncTritonClient(url, version=1) as client:
            return await client.ask(x_NTF), await client.ask(x_NTF, version=2)

    pinned, other = asyncio.run(ask())
    assert (pinned.version, other.version) == (1, 2)


def test_callbacks_get_responses_and_errors_before_close_returns(url, x_NTF):
    async def ask():
        outcomes: list[Answer | ServingError] = []
        async with AsyncTritonClient(url) as client:
            client.submit(x_NTF, outcomes.append)
            client.submit(x_NTF[:, :3], outcomes.append)
            client.submit(x_NTF, outcomes.append, version=9)
        return outcomes

    kinds = sorted(type(outcome).__name__ for outcome in asyncio.run(ask()))
    assert kinds == ["Answer", "ServingError", "ServingError"]


def test_an_error_in_a_callback_is_raised_and_the_connection_closed(url, x_NTF):
    def broken(_):
        raise RuntimeError("the desk's own code")

    async def ask():
        client = AsyncTritonClient(url)
        client.submit(x_NTF, broken)
        with pytest.raises(RuntimeError, match="own code"):
            await client.close()
        with pytest.raises(ServingError, match="closed"):
            await client.predict(x_NTF)

    asyncio.run(ask())


def test_a_deadline_covers_all_attempts(x_NTF, monkeypatch):
    async def ask():
        async with AsyncTritonClient(f"{HOST}:{free_port()}", attempts=10_000) as client:
            loop = asyncio.get_running_loop()
            real, slept = client._infer, asyncio.Event()

            async def first_slow(*asked):
                if not slept.is_set():
                    await asyncio.sleep(2.0)
                    slept.set()
                return await real(*asked)

            monkeypatch.setattr(client, "_infer", first_slow)
            begun = loop.time()
            with pytest.raises(ServingError, match="did not respond within"):
                await client.predict(x_NTF, deadline_s=2.5)
            return loop.time() - begun

    assert asyncio.run(ask()) < 4.0  # 4.5 or more if the deadline were per attempt


def test_a_refusal_is_not_retried(url, x_NTF):
    async def ask():
        async with AsyncTritonClient(url, model="another") as client:
            with pytest.raises(ServingError, match="NOT_FOUND"):
                await client.predict(x_NTF)
            return client.retried

    assert asyncio.run(ask()) == 0


def test_an_unreachable_server_is_retried_until_attempts_or_deadline_end(x_NTF):
    async def ask(**limits):
        async with AsyncTritonClient(f"{HOST}:{free_port()}", attempts=3) as client:
            with pytest.raises(ServingError) as caught:
                await client.predict(x_NTF, **limits)
            return client.retried, str(caught.value)

    retried, said = asyncio.run(ask())
    assert retried == 2
    assert "UNAVAILABLE" in said
    _, said = asyncio.run(ask(deadline_s=0.001))
    assert "did not respond within" in said or "DEADLINE_EXCEEDED" in said


def test_a_request_waits_for_a_server_that_comes_back(url, x_NTF):
    """A proxy that starts to listen after a while plays a restarted server."""
    host, _, port = url.rpartition(":")

    async def pipe(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def ask():
        late = free_port()
        served: list[asyncio.Task[None]] = []

        async def serve(reader, writer):
            task = asyncio.current_task()
            assert task is not None
            served.append(task)
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))

        async with AsyncTritonClient(f"{HOST}:{late}", attempts=50) as client:
            request = asyncio.create_task(client.ask(x_NTF, deadline_s=20))
            await asyncio.sleep(0.3)
            async with await asyncio.start_server(serve, HOST, late):
                answer = await request
                await client.close()
                await asyncio.gather(*served)
            return client.retried, answer.version

    retried, version = asyncio.run(ask())
    assert retried > 0
    assert version == 2
