"""Step `shadow`: mirror recorded requests to the candidate; no client gets its answers."""

import asyncio
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from model_code.comparison.observed import Observed
from model_code.errors import PromotionError
from model_code.features.served import SOLO
from model_code.repository.manifest import Manifest
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.repository.route import Target
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError
from model_code.serving.routed import RoutedClient
from model_code.serving.shadow import mirror
from model_code.settings import PromotionSpec
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import Compared, Opened


class RecordedWindows(NamedTuple):
    """What shadow and canary send.

    Attributes:
        x_RTF: evenly spaced windows, then positives of the champion (R, 64, 16).
        windows_of: by version the windows of a champion of other features, of the same rows.
        even: how many are evenly spaced.
    """

    x_RTF: NDArray[np.float32]
    windows_of: dict[int, NDArray[np.float32]]
    even: int

    @classmethod
    def of(cls, replay: Replay, other: int | None) -> Self:
        """The windows of a file; `other` is a champion that sees other features."""
        found = _joined(replay.x_RTF, replay.positive_x_PTF)
        if other is None or replay.champion_x_RTF is None:
            return cls(found, {}, len(replay.x_RTF))
        theirs = _joined(replay.champion_x_RTF, replay.champion_positive_x_PTF)
        return cls(found, {other: theirs}, len(replay.x_RTF))


def _joined(
    x_RTF: NDArray[np.float32], positive_x_PTF: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    return x_RTF if positive_x_PTF is None else np.concatenate((x_RTF, positive_x_PTF))


NO_CHAMPION = "no baseline: no serving model yet, nothing to compare against"


@once_per_run("shadow")
def shadow(url: str, opened: Opened, repository: str, spec: PromotionSpec) -> Compared:
    """Mirror recorded requests to the candidate; stop if a goal breaks.

    Raises:
        PromotionError: a goal broke, or as `recorded_windows`.
    """
    serving = ServingRepository(Path(repository))
    champion = serving.route().champion
    if champion is None:
        return Compared(skipped=NO_CHAMPION)
    thresholds = thresholds_of(serving, opened)
    windows = recorded_windows(serving, Path(opened.candidate))

    async def run() -> Observed:
        async with RoutedClient(url, serving.route_file, outcomes=False) as client:
            return await mirror(
                client,
                windows.x_RTF,
                champion,
                opened.target,
                spec,
                thresholds,
                windows.windows_of,
                even=windows.even,
            )

    seen = asyncio.run(run())
    broken = seen.broken(spec, final=True)
    if broken:
        raise CanaryStoppedError(
            f"stopped in shadow: {'; '.join(broken)}",
            where=f"version {opened.version}",
            remedy="no client got its answers; check its evidence page",
        )
    return Compared.judged([seen], spec)


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


def recorded_windows(serving: ServingRepository, candidate: Path) -> RecordedWindows:
    """The recorded windows, and those of a champion of other features.

    Raises:
        PromotionError: the champion sees other features, and its windows were not recorded.
        IntegrityError: a version's bytes do not match its manifest.
    """
    replay = Replay.load(candidate / REPLAY_FILE)
    champion = serving.route().champion
    if champion is None:
        return RecordedWindows.of(replay, None)
    seen = SOLO
    if champion.version in serving.known():
        seen = Manifest.load(serving.folder(champion.version)).seen
    manifest = Manifest.load(candidate)
    if manifest.seen == seen:
        return RecordedWindows.of(replay, None)
    if replay.champion_x_RTF is None or replay.champion_version != champion.version:
        found = replay.champion_version
        raise PromotionError(
            f"version {manifest.version} sees other features than version {champion.version}, "
            f"which serves now, and its requests were recorded for "
            f"{'no other version' if found is None else f'version {found}'}",
            where=f"{candidate / REPLAY_FILE}; "
            f"version {manifest.version}: {manifest.seen.text}; "
            f"version {champion.version}: {seen.text}",
            remedy="run tonight's nightly again, so that requests are recorded for the serving "
            "version: tickline nightly; then promote the version that it registers",
        )
    return RecordedWindows.of(replay, champion.version)
