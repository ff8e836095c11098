"""Step `infra validation`: validate the candidate on the real server, under its own name.

Shapes: R requests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.triton.key import control_key
from model_code.errors import PromotionError, ServingError
from model_code.models.probability import probability
from model_code.repository.requests import GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay
from model_code.serving.candidate import CANDIDATE_NAME, load_under
from model_code.serving.client import TritonClient
from model_code.serving.golden import prove
from model_code.serving.load import closed_loop
from model_code.settings import MAX_BATCH_SIZE, PromotionSpec, Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import Loaded, Opened, Validated


@contextmanager
def candidate_loaded(settings: Settings, url: str, opened: Opened) -> Iterator[None]:
    """Serve the candidate under its own name for the block, outside the serving repository.

    Raises:
        IntegrityError: its bytes differ from its manifest; it was not loaded.
        ServingError: it does not load, or answers its golden requests wrongly.
    """
    folder = Path(opened.candidate)
    with TritonClient(url, control_key(settings)) as client:
        try:
            load_under(client, CANDIDATE_NAME, folder)
            prove(client, GoldenSet.load(folder / GOLDEN_FILE), CANDIDATE_NAME, opened.version)
            yield
        finally:
            if client.live():
                client.unload(CANDIDATE_NAME)


@once_per_run("infra validation")
def infra_validation(url: str, opened: Opened, spec: PromotionSpec) -> Validated:
    """Replay recorded requests, compare with the benchmark's answers, measure under load.

    Raises:
        PromotionError: an answer differs by more than the tolerance.
        ServingError: no answer, or too many requests fail under load.
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
            f"the server's answers differ from the benchmark's: probability off by {largest:.3g}, "
            f"allowed {spec.answer_tolerance:g}",
            where=f"{url}, {CANDIDATE_NAME}",
            remedy="the engine's results depend on the machine: build and measure it on this one",
        )
    loads = tuple(_load(url, opened.version, replay.x_RTF, at, spec) for at in spec.concurrency)
    return Validated(replayed=len(replay.x_RTF), largest=largest, loads=loads)


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
