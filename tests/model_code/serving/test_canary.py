"""Shadow and canary with a champion and a candidate in the real server."""

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from infra.triton.server import TritonServer
from model_code.comparison.observed import Observed
from model_code.comparison.outcomes import Outcome, OutcomeReader, OutcomeWriter
from model_code.errors import ServingError
from model_code.models.probability import probability
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError, Counters, Report, walk
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import Statistics, TritonClient
from model_code.serving.routed import RoutedClient
from model_code.serving.shadow import mirror
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, PromotionSpec
from tests.support.serving import APPROVAL, Names, logits, staged, weights, windows

CHAMPION = Target(model=MODEL_NAME, version=1)
CANDIDATE = Target(model=CANDIDATE_NAME, version=2)
SPEC = PromotionSpec(
    shadow_requests=60, positive_requests=10, canary_requests=100, canary_patience=2,
    canary_step_s=0.1, canary_live_requests=10, canary_live_s=60.0, max_p50_ratio=1000.0,
    max_p99_ms=None,
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[3]
WATCHER = f"""
import asyncio, sys
from pathlib import Path
from model_code.models.probability import probability
from model_code.repository.route import Target
from model_code.serving import canary
from model_code.serving.routed import RoutedClient
from model_code.settings import PromotionSpec
from tests.support.serving import windows

async def watch(url, file, spec):
    candidate = Target(model="{CANDIDATE_NAME}", version=2)
    async with RoutedClient(url, file, outcomes=False) as client:
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

    def mirror(
        self,
        x_RTF: NDArray[np.float32] | None = None,
        thresholds: dict[Target, float] | None = None,
    ) -> Observed:
        own_RTF = windows() if x_RTF is None else x_RTF

        async def run() -> Observed:
            async with RoutedClient(self.url, self.place.route_file, outcomes=False) as client:
                return await mirror(client, own_RTF, CHAMPION, CANDIDATE, SPEC, thresholds)

        return asyncio.run(run())

    def walk(
        self,
        spec: PromotionSpec = SPEC,
        report: Report = lambda *_: None,
        counters: Counters | None = None,
    ) -> tuple[list[Observed], list[float]]:
        shares: list[float] = []

        def say(share: float, seen: Observed) -> None:
            shares.append(share)
            report(share, seen)

        async def run() -> list[Observed]:
            async with RoutedClient(self.url, self.place.route_file, outcomes=False) as client:
                return await walk(
                    client, self.place.route_file, windows(), CANDIDATE, spec, say,
                    counters=counters,
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
    indices = np.random.default_rng(CANDIDATE.version).integers(len(one), size=60)
    assert seen.requests == seen.pairs == SPEC.shadow_requests
    assert seen.compared == SPEC.shadow_requests
    assert seen.disagreements == int((one != other)[indices].sum())
    assert seen.positives == int(one[indices].sum()) > SPEC.positive_requests
    assert seen.recorded_positives == int(one.sum())
    assert seen.errors == 0
    assert pair.place.route() == Route(champion=CHAMPION)  # no client was moved


def test_a_candidate_that_fails_in_shadow_affects_no_client(pair: Pair) -> None:
    pair.candidate(matrix=np.full((16, 2), np.nan, np.float32), expected=weights(2))
    seen = pair.mirror()
    assert seen.errors == seen.requests == SPEC.shadow_requests + SPEC.positive_requests
    assert "error rate 100.00%" in seen.broken(SPEC)[0]
    assert "NaN" in seen.broken(SPEC)[0]


def test_a_candidate_that_always_says_no_on_a_market_of_few_positives_is_stopped_in_shadow(
    pair: Pair,
) -> None:
    """2 of 500 recorded requests are positives of the champion, so nearly all decisions agree."""
    pair.candidate()
    x_RTF = windows(500)
    found_R = probability(x_RTF.mean(axis=1) @ weights(1))
    rare = float(np.sort(found_R)[-3:-1].mean())  # between the second and the third largest
    seen = pair.mirror(x_RTF, {CHAMPION: rare, CANDIDATE: 1.0})
    assert (seen.recorded_positives, seen.positives) == (2, 10)
    assert seen.disagreement < 0.1
    spec = SPEC.model_copy(update={"alpha": 0.25})
    assert seen.broken(spec, final=True) == [
        "missed positives of the champion 100.00% > 50.00%: 10 of 10"
    ]


def test_without_positives_of_the_champion_shadow_says_that_none_were_judged(pair: Pair) -> None:
    pair.candidate()
    seen = pair.mirror(None, {CHAMPION: 1.0, CANDIDATE: 1.0})
    assert (seen.recorded_positives, seen.positives, seen.requests) == (0, 0, 60)
    assert seen.broken(SPEC, final=True) == []
    assert "no recorded request is a positive of the champion" in seen.lines[-1]


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
    with pytest.raises(CanaryStoppedError, match=r"share of 5%: error rate 100.00%.*NaN"):
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
    with pytest.raises(CanaryStoppedError, match="latency above 1e-06 ms"):
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


def outcomes(writer: OutcomeWriter, count: int, fault: str = "") -> None:
    for _ in range(count):
        writer.add(Outcome(CANDIDATE_NAME, 2, None if fault else 1.0, error=fault))
        writer.add(Outcome(MODEL_NAME, 1, 1.0))
    writer.flush()


def test_live_traffic_that_fails_stops_the_canary(pair: Pair) -> None:
    pair.candidate()
    writer = OutcomeWriter(pair.place.route_file)
    steps: list[Observed] = []

    def report(_: float, seen: Observed) -> None:
        assert (seen.live is None) == (not steps)
        steps.append(seen)
        outcomes(writer, 10, "" if len(steps) == 1 else "refused")

    with pytest.raises(CanaryStoppedError, match=r"live traffic: error rate 100.00%.*refused"):
        pair.walk(report=report)
    assert len(steps) == 2
    assert steps[1].live is not None
    assert (steps[1].live.requests, steps[1].live.pairs) == (10, 10)
    assert pair.place.route() == Route(champion=CHAMPION)


def test_a_step_waits_for_live_requests_where_there_is_live_traffic(pair: Pair) -> None:
    pair.candidate()
    writer = OutcomeWriter(pair.place.route_file)
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.05):
            if Route.load(pair.place.route_file).shared():
                outcomes(writer, 1)

    client = threading.Thread(target=ask)
    client.start()
    try:
        steps, _ = pair.walk(SPEC.model_copy(update={"canary_step_s": 1.0}))
    finally:
        stop.set()
        client.join()
    assert all(step.live and step.live.requests >= SPEC.canary_live_requests for step in steps)
    assert [step.note for step in steps] == ["", "", ""]


def test_a_step_whose_live_traffic_ends_times_out_and_says_so(pair: Pair) -> None:
    pair.candidate()
    writer = OutcomeWriter(pair.place.route_file)
    spec = SPEC.model_copy(update={"canary_live_s": 0.3})
    steps, shares = pair.walk(spec, lambda *_: outcomes(writer, 3))
    assert shares == list(spec.shares)
    assert [step.note for step in steps] == [
        "",
        "too little live traffic: 3 of 10 requests within 0.3 s",
        "too little live traffic: 3 of 10 requests within 0.3 s",
    ]


def test_requests_of_clients_that_write_nothing_down_are_live_traffic_too(pair: Pair) -> None:
    pair.candidate()
    foreign = 0

    def counters() -> Statistics:
        nonlocal foreign
        foreign += 1
        pair.client.predict(windows()[:1], model=CANDIDATE_NAME, version=2)
        return pair.client.statistics(CANDIDATE_NAME, 2)

    spec = SPEC.model_copy(update={"canary_live_requests": 5})
    steps, _ = pair.walk(spec, counters=counters)
    assert foreign >= 15
    for step in steps:
        assert step.server is not None
        assert (step.live, step.note) == (None, "")
        assert step.server.requests - step.requests >= 5


def test_a_step_lasts_at_least_its_time(pair: Pair) -> None:
    pair.candidate()
    begun = time.monotonic()
    pair.walk(SPEC.model_copy(update={"canary_step_s": 1.0, "canary_requests": 2}))
    assert time.monotonic() - begun >= 3.0


def test_a_failure_that_only_foreign_clients_saw_stops_the_canary(pair: Pair) -> None:
    """Triton counts one failure of the candidate in the second step, no known client does."""
    pair.candidate()
    shares: list[float] = []

    def counters() -> Statistics:
        found = pair.client.statistics(CANDIDATE_NAME, 2)
        return replace(found, failed=5 + len(shares))

    with pytest.raises(CanaryStoppedError, match=r"share of 50%: Triton's counters: error rate"):
        pair.walk(report=lambda share, _: shares.append(share), counters=counters)
    assert shares == [0.05]
    assert pair.place.route() == Route(champion=CHAMPION)


def test_triton_s_failures_that_clients_wrote_down_count_once(pair: Pair) -> None:
    """A late request is no error, but Triton may count it as failed."""
    pair.candidate()
    writer = OutcomeWriter(pair.place.route_file)
    late = Outcome(CANDIDATE_NAME, 2, 1.0, late=True)
    shares: list[float] = []

    def report(share: float, _: Observed) -> None:
        shares.append(share)
        writer.add(late)
        writer.flush()

    def counters() -> Statistics:
        return replace(pair.client.statistics(CANDIDATE_NAME, 2), failed=len(shares))

    spec = SPEC.model_copy(update={"canary_live_requests": 1})
    steps, _ = pair.walk(spec, report, counters)
    assert [step.server.errors for step in steps if step.server] == [0, 0, 0]
    assert steps[-1].server is not None
    assert steps[-1].server.requests >= SPEC.canary_requests


def test_a_server_that_was_restarted_counts_from_zero(pair: Pair) -> None:
    pair.candidate()
    answers = [Statistics(2, 100, 7, *[0] * 7), *[Statistics(2, 5, 0, *[0] * 7)] * 1000]
    steps, _ = pair.walk(counters=lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    assert [step.server.errors for step in steps if step.server] == [0, 0, 0]


def test_a_client_along_the_route_writes_its_outcomes_down_for_the_judge(pair: Pair) -> None:
    pair.candidate()
    file = pair.place.route_file
    judge = OutcomeReader(file)

    async def ask(count: int) -> Counter[int]:
        async with RoutedClient(pair.url, file) as client:
            found = Counter(
                [(await client.ask(windows()[:1])).target.version for _ in range(count)]
            )
            with pytest.raises(ServingError, match="NaN or infinity"):
                await client.ask(np.full((1, 64, 16), np.nan, np.float32))
            assert client.unwritten is None
        return found

    asyncio.run(ask(5))
    assert judge.read() == []  # no canary is active
    Route(champion=CHAMPION, candidate=CANDIDATE, share=0.5).save(file)
    asked, seen = asyncio.run(ask(40)), judge.read()
    assert Counter([one.version for one in seen]) == asked
    assert all(one.ms and not one.error for one in seen)
    pair.client.unload(CANDIDATE_NAME)
    failed = asyncio.run(ask(40))
    assert failed == {1: 40}
    errors = [one for one in judge.read() if one.error]
    assert sum(one.count for one in errors) >= 10
    assert {one.target for one in errors} == {CANDIDATE}


def test_outcomes_that_cannot_be_written_do_not_disturb_the_client(
    pair: Pair, tmp_path: Path
) -> None:
    file = tmp_path / "route.json"
    Route(champion=CHAMPION, candidate=CHAMPION, share=0.5).save(file)
    (tmp_path / "outcomes").write_text("a file where the folder should be")

    async def ask() -> str | None:
        async with RoutedClient(pair.url, file) as client:
            assert (await client.ask(windows()[:1])).target == CHAMPION
        return client.unwritten

    assert "exists" in str(asyncio.run(ask()))
