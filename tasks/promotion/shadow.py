"""Step `shadow`: mirror recorded requests to the candidate; no client gets its answers."""

import asyncio
from pathlib import Path

from model_code.repository.manifest import Manifest
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.repository.route import Target
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError
from model_code.serving.observed import Observed
from model_code.serving.routed import RoutedClient
from model_code.serving.shadow import mirror
from model_code.settings import PromotionSpec
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import Compared, Opened

NO_CHAMPION = "no baseline: no serving model yet, nothing to compare against"


@once_per_run("shadow")
def shadow(url: str, opened: Opened, repository: str, spec: PromotionSpec) -> Compared:
    """Mirror recorded requests to the candidate; stop if a goal breaks.

    Raises:
        PromotionError: a goal broke.
    """
    serving = ServingRepository(Path(repository))
    champion = serving.route().champion
    if champion is None:
        return Compared(skipped=NO_CHAMPION)
    thresholds = thresholds_of(serving, opened)
    windows = Replay.load(Path(opened.candidate) / REPLAY_FILE).x_RTF

    async def run() -> Observed:
        async with RoutedClient(url, serving.route_file) as client:
            return await mirror(client, windows, champion, opened.target, spec, thresholds)

    seen = asyncio.run(run())
    broken = seen.broken(spec, final=True)
    if broken:
        raise CanaryStoppedError(
            f"stopped in shadow: {'; '.join(broken)}",
            where=f"version {opened.version}",
            remedy="no client got its answers; check its evidence page",
        )
    return Compared(skipped=None, steps=(seen,))


def thresholds_of(serving: ServingRepository, opened: Opened) -> dict[Target, float]:
    """The decision thresholds of the champion and of the candidate, from their manifests.

    Raises:
        IntegrityError: a version's bytes do not match its manifest.
    """
    found = {opened.target: Manifest.load(Path(opened.candidate)).threshold}
    champion = serving.route().champion
    if champion is not None and champion.version in serving.known():
        found[champion] = Manifest.load(serving.folder(champion.version)).threshold
    return found
