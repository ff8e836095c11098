"""Step `canary`: move traffic to the candidate step by step."""

import asyncio
from pathlib import Path

from model_code.comparison.observed import Observed
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import walk
from model_code.serving.client import TritonClient
from model_code.serving.routed import RoutedClient
from model_code.settings import PromotionSpec
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import Compared, Opened
from tasks.promotion.shadow import NO_CHAMPION, recorded_windows, thresholds_of
from tasks.runs.console import console


@once_per_run("canary")
def canary(
    url: str, opened: Opened, repository: str, spec: PromotionSpec, mirrored: Compared
) -> Compared:
    """Move traffic to the candidate step by step; stop if a goal breaks.

    Args:
        url: of the server.
        opened: the promotion.
        repository: folder of the serving repository.
        spec: steps and goals.
        mirrored: result of shadow; its decisions count too.

    Raises:
        CanaryStoppedError: a goal broke; the champion has all requests again.
        FencedError: an emergency rollback took over.
        PromotionError: as `recorded_windows`.
    """
    serving = ServingRepository(Path(repository), opened.epoch)
    serving.fence.require()
    if serving.route().champion is None:
        return Compared(skipped=NO_CHAMPION)
    thresholds = thresholds_of(serving, opened)
    windows = recorded_windows(serving, Path(opened.candidate))

    def say(share: float, seen: Observed) -> None:
        console.print(f"            share {share:.0%}:")
        for line in seen.lines:
            console.print(f"              {line}")

    async def run() -> list[Observed]:
        async with RoutedClient(url, serving.route_file, outcomes=False) as client:
            return await walk(
                client,
                serving.route_file,
                windows.x_RTF[: windows.even],
                opened.target,
                spec,
                say,
                thresholds,
                windows.windows_of,
                counters=lambda: triton.statistics(opened.target.model, opened.version),
                shadowed=mirrored.steps[-1] if mirrored.steps else None,
                turn=serving.turn,
            )

    with TritonClient(url) as triton:
        steps = asyncio.run(run())
    return Compared.judged(steps, spec)
