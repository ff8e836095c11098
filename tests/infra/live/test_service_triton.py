"""The service with a real Triton server and broker: killed, restarted and swapped in mid-stream."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from infra.live.inference.triton import Triton
from infra.live.inference.versions import Versions
from infra.live.kafka.clients import KafkaSpec
from infra.live.service import Service
from infra.live.spec import TritonSpec
from model_code.errors import ServingError
from model_code.features.served import SOLO, ServedFeatures
from model_code.live.ledger import Ledger
from model_code.live.messages import Tick
from model_code.live.reasons import Column, Reason
from model_code.settings import FeatureSpec
from tests.infra.live.test_service import DECISIONS, decided, messages, send, service, spec, store
from tests.support.triton import TritonProcess

__all__ = ["spec", "store"]  # fixtures
PATIENT = TritonSpec(deadline_ms=5000.0)
PAIRED = ServedFeatures.of(FeatureSpec(feature_set="paired"), {})
Act = Callable[[Triton, Service], Awaitable[None]]


def thirds(store: str) -> list[list[Tick]]:
    ticks = messages(store)
    first, second = int(len(ticks) * 0.65), int(len(ticks) * 0.85)
    return [ticks[:first], ticks[first:second], ticks[second:]]


async def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def play(
    kafka: KafkaSpec, server: TritonProcess, folder: Path, parts: list[list[Tick]], *acts: Act
) -> Ledger:
    """Send the parts of a day with an act between each two; the ledger at the end."""
    versions = Versions(server.serving, server.settings.staging_repository, SOLO)

    async def run() -> Ledger:
        async with Triton(server.url, versions, PATIENT, print) as model:
            one, _ = service(kafka, folder, model=model)
            running = asyncio.create_task(one.run())
            sent = 0
            for part, act in zip(parts, [*acts, None], strict=True):
                await asyncio.to_thread(send, kafka, SOLO, part)
                sent += len(part)
                settled = lambda: one.partitions.ledger.ended == sent  # noqa: E731, B023
                await wait_for(lambda: settled() or running.done())  # noqa: B023
                if act is not None:
                    await act(model, one)
            one.stop()
            return await running

    return asyncio.run(asyncio.wait_for(run(), 60))


def test_triton_killed_and_restarted_in_mid_stream(
    spec: KafkaSpec, store: str, triton: TritonProcess, tmp_path: Path
) -> None:
    async def kill(model: Triton, _: Service) -> None:
        await asyncio.to_thread(triton.kill)

    async def restart(model: Triton, _: Service) -> None:
        assert model.away
        await asyncio.to_thread(triton.start)
        await wait_for(lambda: not model.away)

    parts = thirds(store)
    ledger = play(spec, triton, tmp_path / "live", parts, kill, restart)
    assert ledger.balanced()
    assert ledger.columns[Column.DECIDED] == DECISIONS
    assert ledger.lost == ledger.reordered == ledger.duplicated == 0
    decisions = decided(spec, DECISIONS)
    assert {(one.model_version, one.threshold) for one in decisions} == {(1, 0.25)}
    during = {(one.symbol, one.sequence) for one in parts[1]}
    flagged = {(one.symbol, one.sequence) for one in decisions if one.flags == ("fallback",)}
    asked = {(one.symbol, one.sequence) for one in decisions}
    assert flagged == during & asked
    assert all(one.flags in ((), ("fallback",)) for one in decisions)


def test_a_swap_in_mid_stream_loses_nothing(
    spec: KafkaSpec, store: str, triton: TritonProcess, tmp_path: Path
) -> None:
    swaps: list[asyncio.Task[None]] = []

    async def begin(model: Triton, _: Service) -> None:  # while the next part is decided
        swaps.append(asyncio.create_task(asyncio.to_thread(triton.promote, 2, threshold=0.75)))

    async def finish(model: Triton, _: Service) -> None:
        await swaps[0]
        await asyncio.sleep(0.05)  # clients read the route every 20 ms

    parts = thirds(store)
    ledger = play(spec, triton, tmp_path / "live", parts, begin, finish)
    assert ledger.balanced()
    assert ledger.columns[Column.DECIDED] == DECISIONS
    decisions = decided(spec, DECISIONS)
    assert {(one.model_version, one.threshold) for one in decisions} == {(1, 0.25), (2, 0.75)}
    assert all(one.flags == () for one in decisions)
    after = {(one.symbol, one.sequence) for one in parts[2]}
    assert {one.model_version for one in decisions if (one.symbol, one.sequence) in after} == {2}


def test_a_swap_to_other_features_ends_the_service(
    spec: KafkaSpec, store: str, triton: TritonProcess, tmp_path: Path
) -> None:
    found: list[Service] = []

    async def swap(model: Triton, one: Service) -> None:
        found.append(one)
        await asyncio.to_thread(triton.promote, 2, features=PAIRED)
        await asyncio.sleep(0.05)

    first, second, _ = thirds(store)
    with pytest.raises(ServingError, match="version 2 sees other features"):
        play(spec, triton, tmp_path / "live", [first, second], swap)
    ledger = found[0].partitions.ledger
    assert ledger.balanced()
    assert ledger.reasons[Reason.INFERENCE_FAILED] > 0
    decided(spec, ledger.columns[Column.DECIDED])  # nothing after the swap was published
