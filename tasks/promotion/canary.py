"""Step `canary`: move traffic to the candidate step by step."""

import asyncio
from pathlib import Path

from model_code.repository.serving import ServingRepository
from model_code.serving.canary import walk
from model_code.serving.observed import Observed
from model_code.serving.routed import RoutedClient
from model_code.settings import PromotionSpec
from tasks.caching.once_per_run import once_per_run
from tasks.caching.stage import console
from tasks.promotion.records import Compared, Opened
from tasks.promotion.shadow import NO_CHAMPION, recorded_windows, thresholds_of


@once_per_run("canary")
def canary(url: str, opened: Opened, repository: str, spec: PromotionSpec) -> Compared:
    """Move traffic to the candidate step by step; stop if a goal breaks.

    Raises:
        CanaryStoppedError: a goal broke; the champion has all requests again.
        PromotionError: as `recorded_windows`.
    """
    serving = ServingRepository(Path(repository))
    if serving.route().champion is None:
        return Compared(skipped=NO_CHAMPION)
    thresholds = thresholds_of(serving, opened)
    windows, windows_of = recorded_windows(serving, Path(opened.candidate))

    def say(share: float, seen: Observed) -> None:
        console.print(
            f"            share {share:.0%}: {seen.requests} requests, {seen.errors} failed, "
            f"{seen.disagreement:.1%} different decisions"
        )
        if seen.live is not None:
            console.print(
                f"            live traffic: {seen.live.requests} requests, "
                f"{seen.live.errors} failed, {seen.live.disagreement:.1%} different decisions"
            )

    async def run() -> list[Observed]:
        async with RoutedClient(url, serving.route_file) as client:
            return await walk(
                client,
                serving.route_file,
                windows,
                opened.target,
                spec,
                say,
                thresholds,
                windows_of,
            )

    return Compared(skipped=None, steps=tuple(asyncio.run(run())))
