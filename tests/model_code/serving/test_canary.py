"""Shadow and canary with a champion and a candidate in the real server."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from infra.triton.server import TritonServer
from model_code.errors import ServingError
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError, walk
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import TritonClient
from model_code.serving.observed import Observed
from model_code.serving.outcomes import Outcome, OutcomeWriter
from model_code.serving.routed import RoutedClient
from model_code.serving.shadow import mirror
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, PromotionSpec
from tests.support.serving import APPROVAL, Names, logits, staged, weights, windows

CHAMPION = Target(model=MODEL_NAME, version=1)
CANDIDATE = Target(model=CANDIDATE_NAME, version=2)
SPEC = PromotionSpec(
    shadow_requests=60, canary_requests=100, canary_patience=2, max_p50_ratio=1000.0,
    max_p99_ms=None,
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[3]
WATCHER = f"""
import asyncio, sys
from pathlib import Path
from model_code.repository.route import Target
from model_code.serving import canary
from model_code.serving.routed import RoutedClient
from model_code.settings import PromotionSpec
from tests.support.serving import windows

async def watch(url, file, spec):
    candidate = Target(model="{CANDIDATE_NAME}", version=2)
    async with RoutedClient(url, file) as client:
        await canary.walk(client, file, windows(), candidate, spec, lambda *_: None)

canary.LEASE_S = 2.0
url, file, spec = sys.argv[1:]
asyncio.run(watch(url, Path(file), PromotionSpec.model_validate_json(spec)))
"""


@dataclass
class Pair:
    url: str
    place: ServingRepository
    client: TritonClient
    staging: Path

    def candidate(self, **how: object) -> None:
        load_under(self.client, CANDIDATE_NAME, staged(self.staging, 2, **how))  # type: ignore[arg-type]

    def mirror(self, spec: PromotionSpec = SPEC) -> Observed:
        async def run() -> Observed:
            async with RoutedClient(self.url, self.place.route_file) as client:
                return await mirror(client, windows(), CHAMPION, CANDIDATE, spec)

        return asyncio.run(run())

    def walk(self, spec: PromotionSpec = SPEC) -> tuple[list[Observed], list[float]]:
        shares: list[float] = []

        async def run() -> list[Observed]:
            async with RoutedClient(self.url, self.place.route_file) as client:
                return await walk(
                    client, self.place.route_file, windows(), CANDIDATE, spec,
                    lambda share, _: shares.append(share),
                )  # fmt: skip

        return asyncio.run(run()), shares


@pytest.fixture
def pair(live_triton: TritonServer, tmp_path: Path) -> Iterator[Pair]:
    place = ServingRepository(live_triton.repository)
    place.publish(staged(tmp_path / "staging", 1), APPROVAL)
    with live_triton.client() as client:
        Swap(place, client, Names()).run("promote", 1, None, "f")
        yield Pair(live_triton.grpc_url, place, client, tmp_path / "staging")


def test_shadow_sends_to_both_and_compares_decisions(pair: Pair) -> None:
    pair.candidate()
    seen = pair.mirror()
    one, other = (answers[:, 1] > answers[:, 0] for answers in (logits(1), logits(2)))
    indices = np.arange(SPEC.shadow_requests) % len(one)
    assert seen.requests == SPEC.shadow_requests
    assert seen.disagreements == int((one != other)[indices].sum())
    assert seen.errors == 0
    assert pair.place.route() == Route(champion=CHAMPION)  # no client was moved


def test_a_candidate_that_fails_in_shadow_affects_no_client(pair: Pair) -> None:
    pair.candidate(matrix=np.full((16, 2), np.nan, np.float32), expected=weights(2))
    seen = pair.mirror()
    assert seen.errors == seen.requests == SPEC.shadow_requests
    assert "error rate 100.00%" in seen.broken(SPEC)[0]
    assert "NaN" in seen.broken(SPEC)[0]


def test_a_candidate_loaded_over_another_replaces_it(pair: Pair, tmp_path: Path) -> None:
    pair.candidate()
    load_under(pair.client, CANDIDATE_NAME, staged(tmp_path / "b" / "s", 2, matrix=-weights(2)))
    found = pair.client.predict(windows(), model=CANDIDATE_NAME)
    np.testing.assert_allclose(found, -logits(2), atol=1e-4)


def test_canary_reaches_all_requests_and_returns_the_route_to_the_champion(pair: Pair) -> None:
    pair.candidate()
    steps, shares = pair.walk()
    assert shares == [0.05, 0.5, 1.0]
    assert [step.requests for step in steps] == pytest.approx([5, 50, 100], abs=3)
    assert sum(step.errors for step in steps) == 0
    assert pair.place.route() == Route(champion=CHAMPION)


def test_canary_of_a_failing_candidate_stops_at_once_and_no_request_is_lost(pair: Pair) -> None:
    pair.candidate(matrix=np.full((16, 2), np.nan, np.float32), expected=weights(2))
    with pytest.raises(CanaryStoppedError, match=r"share of 5%: error rate 100.00% .*NaN"):
        pair.walk()
    assert pair.place.route() == Route(champion=CHAMPION)


def test_canary_with_other_decisions_stops(pair: Pair) -> None:
    pair.candidate(matrix=-weights(1))
    with pytest.raises(CanaryStoppedError, match=r"disagreement with the champion 100\.00%"):
        pair.walk()
    assert pair.place.route() == Route(champion=CHAMPION)


def test_canary_that_is_slow_stops(pair: Pair) -> None:
    pair.candidate()
    impossible = SPEC.model_copy(update={"max_p99_ms": 1e-6})
    with pytest.raises(CanaryStoppedError, match="p99 latency"):
        pair.walk(impossible)
    assert pair.place.route() == Route(champion=CHAMPION)


def test_a_candidate_that_vanishes_loses_no_request(pair: Pair) -> None:
    pair.candidate()
    Route(champion=CHAMPION, candidate=CANDIDATE, share=1.0).save(pair.place.route_file)

    async def run() -> None:
        async with RoutedClient(pair.url, pair.place.route_file) as client:
            assert (await client.ask(windows()[:1])).target == CANDIDATE
            pair.client.unload(CANDIDATE_NAME)
            answer = await client.ask(windows()[:1])
            assert answer.target == CHAMPION
            assert answer.failed[0][0] == CANDIDATE
            np.testing.assert_allclose(answer.logits_BC, logits(1)[:1], atol=1e-4)

    asyncio.run(run())


def test_a_candidate_that_does_not_respond_loses_no_request(
    pair: Pair, live_triton: TritonServer
) -> None:
    before = {child.pid for child in stubs(live_triton)}
    pair.candidate()
    hung = [child for child in stubs(live_triton) if child.pid not in before]
    Route(champion=CHAMPION, candidate=CANDIDATE, share=1.0).save(pair.place.route_file)

    async def run() -> None:
        async with RoutedClient(pair.url, pair.place.route_file) as client:
            answer = await client.ask(windows()[:1], deadline_s=10.0)
            assert answer.target == CHAMPION
            assert [target for target, _ in answer.failed] == [CANDIDATE]
            np.testing.assert_allclose(answer.logits_BC, logits(1)[:1], atol=1e-4)

    assert len(hung) == 1
    hung[0].suspend()
    try:
        asyncio.run(run())
    finally:
        hung[0].resume()


def stubs(server: TritonServer) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children(recursive=True)
    return [child for child in children if "python_backend" in child.name()]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_share_is_renewed_while_watched_and_ends_after_its_watcher_is_killed(pair: Pair) -> None:
    """Requests are counted at the client and at the server."""
    pair.candidate()
    file, asked = pair.place.route_file, 40
    spec = SPEC.model_copy(update={"shares": (0.5, 1.0), "canary_requests": 1_000_000})

    async def targets(client: RoutedClient) -> Counter[Target]:
        return Counter([(await client.ask(windows()[:1])).target for _ in range(asked)])

    def end(route: Route) -> float:
        assert route.until is not None
        return route.until

    def answered(target: Target) -> int:
        return pair.client.statistics(target.model, target.version).requests

    async def run(watcher: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: watcher.poll() is not None or Route.load(file).shared())
        first = Route.load(file)
        assert (first.candidate, first.share) == (CANDIDATE, 0.5)
        async with RoutedClient(pair.url, file) as client:
            wait_until(lambda: time.time() > end(first))
            while_watched = await targets(client)
            watcher.kill()
            watcher.wait()
            left = Route.load(file)
            assert left.candidate == CANDIDATE, "a killed process restores nothing"
            wait_until(lambda: time.time() > end(left))
            before = {target: answered(target) for target in (CHAMPION, CANDIDATE)}
            after_the_kill = await targets(client)
        assert asked / 4 < while_watched[CANDIDATE] < asked, "renewed: the first end has passed"
        assert after_the_kill == {CHAMPION: asked}
        assert answered(CANDIDATE) == before[CANDIDATE] > 0
        assert answered(CHAMPION) == before[CHAMPION] + asked

    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, pair.url, str(file), spec.model_dump_json()], cwd=ROOT
    )
    try:
        asyncio.run(run(watcher))
    finally:
        watcher.kill()
        watcher.wait()


def test_bad_windows_are_refused_without_retries(pair: Pair) -> None:
    async def run() -> None:
        async with RoutedClient(pair.url, pair.place.route_file) as client:
            await client.ask(np.full((1, 64, 16), np.nan, np.float32))

    with pytest.raises(ServingError, match="NaN or infinity"):
        asyncio.run(run())


def test_versions_of_other_features_get_their_own_windows_in_shadow_and_canary(pair: Pair) -> None:
    """The candidate sees the negated windows, and decides as the champion does on the others."""
    pair.candidate(matrix=-weights(1))
    negated, own = -windows(), {CHAMPION.version: windows()}

    async def compared(windows_of: dict[int, NDArray[np.float32]] | None) -> list[Observed]:
        async with RoutedClient(pair.url, pair.place.route_file) as client:
            seen = await mirror(client, negated, CHAMPION, CANDIDATE, SPEC, None, windows_of)
            file = pair.place.route_file
            return [
                seen,
                *await walk(
                    client, file, negated, CANDIDATE, SPEC, lambda *_: None, None, windows_of
                ),
            ]

    seen = asyncio.run(compared(own))
    assert [step.disagreements for step in seen] == [0, 0, 0, 0]
    assert all(step.requests > step.errors == 0 for step in seen)
    with pytest.raises(CanaryStoppedError, match="disagreement with the champion"):
        asyncio.run(compared(None))


def test_live_traffic_that_fails_stops_the_canary(pair: Pair) -> None:
    pair.candidate()
    writer = OutcomeWriter(pair.place.route_file)
    shares: list[float] = []

    def report(share: float, seen: Observed) -> None:
        shares.append(share)
        assert (seen.live is None) == (share == SPEC.shares[0])
        fault = "" if len(shares) == 1 else "refused"
        for _ in range(10):
            ms = None if fault else 1.0
            writer.add(Outcome(CANDIDATE_NAME, 2, ms, error=fault))
            writer.add(Outcome(MODEL_NAME, 1, 1.0))
        writer.flush()

    async def run() -> None:
        async with RoutedClient(pair.url, pair.place.route_file) as client:
            await walk(client, pair.place.route_file, windows(), CANDIDATE, SPEC, report)

    with pytest.raises(CanaryStoppedError, match=r"live traffic: error rate 100.00%.*refused"):
        asyncio.run(run())
    assert shares == list(SPEC.shares[:2])
    assert pair.place.route() == Route(champion=CHAMPION)
