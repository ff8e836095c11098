"""Swaps and rollbacks under load: `python -m tests.bench.swap_load`, or `make swap-load`.

A real Triton server, clients that follow the route as fast as they are answered, and a release
manager who promotes and rolls back all the while, between versions of one configuration and over a
change of backend. Every answer is compared with what the version that gave it must answer. The
graphs are tiny: what is loaded here is the change of versions, not the arithmetic.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from infra.triton.server import running
from model_code.errors import TicklineError
from model_code.repository.serving import ServingRepository
from model_code.serving.routed import RoutedClient
from model_code.serving.swap import Swap
from model_code.settings import Settings
from tests.support.serving import APPROVAL, Names, logits, staged, windows

CLIENTS = 8
TOLERANCE = 1e-4
# version, engine: 1 and 2 share a configuration, 3 needs another backend
VERSIONS = {1: "onnxruntime-fp32", 2: "onnxruntime-fp32", 3: "openvino-fp32"}
# what becomes champion next, and how
STORY = (("promote", 2), ("rollback", 1), ("promote", 3), ("rollback", 2), ("rollback", 1))


@dataclass
class Seen:
    """What the clients saw."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    again: int = 0
    by: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


async def load(url: str, route_file: Path, stop: threading.Event, seen: Seen) -> None:
    """Eight clients, each asking again as soon as it is answered."""
    x_NTF = windows()
    expected = {version: logits(version) for version in VERSIONS}

    async def one(client: RoutedClient, start: int) -> None:
        number = start
        while not stop.is_set():
            index = number % len(x_NTF)
            number += 1
            seen.requests += 1
            try:
                answer = await client.ask(x_NTF[index][None])
            except TicklineError as error:
                seen.failed += 1
                seen.reasons[error.what] += 1
                continue
            seen.again += len(answer.failed)
            seen.reasons.update(reason for _, reason in answer.failed)
            seen.by[f"{answer.target.model}/{answer.target.version}"] += 1
            right = expected[answer.target.version][index]
            seen.wrong += not np.abs(answer.logits_BC[0] - right).max() <= TOLERANCE

    async with RoutedClient(url, route_file) as client:
        await asyncio.gather(*(one(client, start * 7) for start in range(CLIENTS)))


def run(folder: Path, requests: int, rounds: int) -> tuple[Seen, list[tuple[str, int, float]]]:
    """Swap until at least so many requests and rounds of the story; what was seen, what was done.

    Args:
        folder: scratch.
        requests: at least.
        rounds: of `STORY`, at least.
    """
    answers = [logits(version) for version in VERSIONS]
    gaps = [
        np.abs(one - other).max(axis=1).min()
        for one in answers
        for other in answers
        if one is not other
    ]
    assert min(gaps) > 2 * TOLERANCE, "versions must be told apart by every answer"
    settings = Settings(home=folder / "home").resolved()
    repository = ServingRepository(settings.serving_repository)
    done: list[tuple[str, int, float]] = []
    with (
        running(settings, settings.serving_repository) as server,
        server.client() as client,
    ):
        swap = Swap(repository, client, Names())
        for version, engine in VERSIONS.items():
            repository.publish(staged(folder / "staging", version, name=engine), APPROVAL)
        swap.run("promote", 1, None, "load")
        stop, seen = threading.Event(), Seen()
        worker = threading.Thread(
            target=lambda: asyncio.run(load(server.grpc_url, repository.route_file, stop, seen))
        )
        worker.start()
        try:
            while len(done) < rounds * len(STORY) or seen.requests < requests:
                kind, version = STORY[len(done) % len(STORY)]
                begun = time.perf_counter()
                swap.run(kind, version, None, "load")
                done.append((kind, version, time.perf_counter() - begun))
                time.sleep(0.3)
        finally:
            stop.set()
            worker.join()
    return seen, done


def main() -> None:
    """Print each change, what the clients saw, and the verdict as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        seen, done = run(Path(folder), asked.requests, asked.rounds)
        seconds = time.perf_counter() - begun
    out = Console(highlight=False, soft_wrap=True, markup=False)
    for kind in ("promote", "rollback"):
        took = [s for what, _, s in done if what == kind]
        out.print(f"{kind}: {len(took)} times, {min(took):.2f} to {max(took):.2f} s each")
    out.print(f"{CLIENTS} clients, {seconds:.0f} s; answers by model/version: {dict(seen.by)}")
    out.print(f"asked again after a swap in between: {seen.again} {dict(seen.reasons)}")
    out.print(f"requests {seen.requests} failed {seen.failed} wrong {seen.wrong}")
    sys.exit(1 if seen.failed or seen.wrong or seen.requests < asked.requests else 0)


if __name__ == "__main__":
    main()
