"""From the windows of a round to decisions, and the messages that are published.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np

from infra.live.kafka.clients import dead_letters
from infra.live.kafka.consumer import Received
from infra.live.model import FeaturesChangedError, Model
from model_code.live.messages import DeadLetter, Decision, encode
from model_code.live.path import Asked, LivePath
from model_code.settings import MAX_BATCH_SIZE

MOST_DETAIL = 1000  # characters of a header
MOST_KEY = 1000  # bytes
MOST_PAYLOAD = 900_000  # a broker takes about 1 MB, with key and headers
Windows = tuple[LivePath, Asked]


class Sink(Protocol):
    """Where decisions go besides the topic; one that fails does not stop the service."""

    async def write(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        """Take the decisions of a round, in their order, and all windows that were asked about."""


class Output(NamedTuple):
    """A message to publish."""

    topic: str
    key: bytes
    value: bytes
    headers: dict[str, bytes]


def ready(path: LivePath, now_ns: int) -> list[Windows]:
    """All windows of a path that wait."""
    found = []
    while (asked := path.ready(now_ns)) is not None:
        found.append((path, asked))
    return found


async def decide(
    model: Model, asked: Sequence[Windows], say: Callable[[str], None]
) -> list[Decision]:
    """Ask the model about the windows, as many at once as an engine takes.

    Raises:
        FeaturesChangedError: the champion sees other features than those computed here.
    """
    decisions: list[Decision] = []
    left = batches(asked)
    while left:
        batch = left.pop(0)
        x_BTF = np.concatenate([one.x_BTF for _, one in batch])
        try:
            answered = await model.ask(x_BTF)
        except BaseException as error:  # of whatever library answers; the windows are counted
            fatal = isinstance(error, FeaturesChangedError) or not isinstance(error, Exception)
            for path, one in [*batch, *chain.from_iterable(left if fatal else ())]:
                path.fail(one)
            if fatal:
                raise
            say(f"the model did not answer for {len(x_BTF)} windows: {error}")
            continue
        now_ns, first = time.time_ns(), 0
        for path, one in batch:
            last = first + len(one.waiting)
            decisions += path.answer(
                one,
                answered.probability_B[first:last],
                now_ns,
                model_version=answered.version,
                threshold=answered.threshold,
                flags=answered.flags,
            )
            first = last
    return decisions


def batches(asked: Sequence[Windows]) -> list[list[Windows]]:
    """Batches of at most `MAX_BATCH_SIZE` windows, in their order."""
    found: list[list[Windows]] = []
    size = MAX_BATCH_SIZE
    for path, one in asked:
        if size + len(one.waiting) > MAX_BATCH_SIZE:
            found.append([])
            size = 0
        found[-1].append((path, one))
        size += len(one.waiting)
    return found


def decision(topic: str, one: Decision) -> Output:
    """A decision, by its symbol."""
    return Output(topic, one.symbol.encode(), encode(one), {})


def dead_letter(one: Received, letter: DeadLetter) -> Output:
    """The bytes of a dead letter, with the error and the origin as headers."""
    headers = {
        "error": letter.reason,
        "detail": letter.detail[:MOST_DETAIL],
        "topic": one.partition.topic,
        "partition": str(one.partition.number),
        "offset": str(one.offset),
        "at_ns": str(letter.at_ns),
    }
    if len(letter.payload) > MOST_PAYLOAD:
        headers["cut_from"] = str(len(letter.payload))
    return Output(
        dead_letters(one.partition.topic),
        one.key[:MOST_KEY],
        letter.payload[:MOST_PAYLOAD],
        {name: value.encode() for name, value in headers.items()},
    )
