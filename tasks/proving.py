"""The candidate in the real server, under its own name: validation, shadow, canary.

Shapes: R requests.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_code.errors import PromotionError, ServingError
from model_code.inference import probability
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError, walk
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import TritonClient
from model_code.serving.golden import GoldenSet, prove
from model_code.serving.load import closed_loop
from model_code.serving.observed import Observed
from model_code.serving.replay import GOLDEN_FILE, REPLAY_FILE, Replay
from model_code.serving.route import Target
from model_code.serving.routed import RoutedClient
from model_code.serving.shadow import mirror
from model_code.settings import MAX_BATCH_SIZE, PromotionSpec
from tasks.promotion_results import Compared, Loaded, Opened, Validated
from tasks.stage import console
from tasks.step import step

NO_CHAMPION = "no baseline: nothing serves yet, so there is nothing to compare with"


@contextmanager
def candidate_loaded(url: str, opened: Opened) -> Iterator[None]:
    """Serve the candidate under its own name for the block; it is in no repository.

    Raises:
        IntegrityError: its bytes differ from its manifest; it was not loaded.
        ServingError: it does not load, or answers its golden requests wrongly.
    """
    folder = Path(opened.candidate)
    with TritonClient(url) as client:
        try:
            load_under(client, CANDIDATE_NAME, folder)
            prove(client, GoldenSet.load(folder / GOLDEN_FILE), CANDIDATE_NAME, opened.version)
            yield
        finally:
            if client.live():
                client.unload(CANDIDATE_NAME)


@step("infra validation")
def validate(url: str, opened: Opened, spec: PromotionSpec) -> Validated:
    """Replay recorded requests, compare with the benchmark's answers, measure under load.

    Raises:
        PromotionError: an answer is off by more than the tolerance, or requests fail under load.
        ServingError: no answer.
    """
    replay = Replay.load(Path(opened.candidate) / REPLAY_FILE)
    with TritonClient(url) as client:
        answers = [
            probability(
                client.predict(
                    replay.x_RTF[start : start + MAX_BATCH_SIZE],
                    model=CANDIDATE_NAME,
                    version=opened.version,
                )
            )
            for start in range(0, len(replay.x_RTF), MAX_BATCH_SIZE)
        ]
    largest = float(np.abs(np.concatenate(answers) - replay.probability_R).max())
    if not largest <= spec.answer_tolerance:
        raise PromotionError(
            f"the server answers otherwise than the benchmark: probability off by {largest:.3g}, "
            f"allowed {spec.answer_tolerance:g}",
            where=f"{url}, {CANDIDATE_NAME}",
            remedy="the engine behaves otherwise here than where it was measured; "
            "build and measure it on this machine",
        )
    loads = tuple(_load(url, opened.version, replay.x_RTF, at, spec) for at in spec.concurrency)
    return Validated(replayed=len(replay.x_RTF), largest=largest, loads=loads)


@step("shadow")
def shadow(url: str, opened: Opened, repository: str, spec: PromotionSpec) -> Compared:
    """Mirror recorded requests to the candidate; stop if a goal breaks.

    Raises:
        PromotionError: a goal broke.
    """
    place = ServingRepository(Path(repository))
    champion = place.route().champion
    if champion is None:
        return Compared(skipped=NO_CHAMPION)
    windows = Replay.load(Path(opened.candidate) / REPLAY_FILE).x_RTF

    async def run() -> Observed:
        async with RoutedClient(url, place.route_file) as client:
            return await mirror(client, windows, champion, _target(opened), spec)

    seen = asyncio.run(run())
    broken = seen.broken(spec, final=True)
    if broken:
        raise CanaryStoppedError(
            f"stopped in shadow: {'; '.join(broken)}",
            where=f"version {opened.version}",
            remedy="nobody was answered by it; look at its evidence page",
        )
    return Compared(skipped=None, steps=(seen,))


@step("canary")
def canary(url: str, opened: Opened, repository: str, spec: PromotionSpec) -> Compared:
    """Move traffic to the candidate step by step; stop if a goal breaks.

    Raises:
        CanaryStoppedError: a goal broke; the champion has all requests again.
    """
    place = ServingRepository(Path(repository))
    if place.route().champion is None:
        return Compared(skipped=NO_CHAMPION)
    windows = Replay.load(Path(opened.candidate) / REPLAY_FILE).x_RTF

    def say(share: float, seen: Observed) -> None:
        console.print(
            f"            share {share:.0%}: {seen.requests} requests, {seen.errors} failed, "
            f"{seen.disagreement:.1%} decided otherwise"
        )

    async def run() -> list[Observed]:
        async with RoutedClient(url, place.route_file) as client:
            return await walk(client, place.route_file, windows, _target(opened), spec, say)

    return Compared(skipped=None, steps=tuple(asyncio.run(run())))


def _target(opened: Opened) -> Target:
    return Target(model=CANDIDATE_NAME, version=opened.version)


def _load(
    url: str, version: int, x_RTF: NDArray[np.float32], concurrency: int, spec: PromotionSpec
) -> Loaded:
    seen = closed_loop(
        url,
        x_RTF,
        concurrency=concurrency,
        requests=spec.load_requests,
        model=CANDIDATE_NAME,
        version=version,
    )
    if seen.failed > spec.max_error_rate * seen.requests:
        reason = next(iter(seen.errors), "no answer")
        raise ServingError(
            f"{seen.failed} of {seen.requests} requests failed at concurrency {concurrency}: "
            f"{reason}",
            where=url,
        )
    return Loaded(
        concurrency=concurrency,
        p50_ms=seen.percentile_ms(50),
        p99_ms=seen.percentile_ms(99),
        throughput=seen.throughput,
        failed=seen.failed,
    )
