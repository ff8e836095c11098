"""Windows to decisions, and dead letters as messages."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from infra.live.kafka.clients import Partition
from infra.live.kafka.consumer import Received
from infra.live.model import Answered
from infra.live.outputs import MOST_KEY, MOST_PAYLOAD, batches, dead_letter, decide, ready
from model_code.live.messages import DeadLetter
from model_code.live.reasons import Reason
from tests.support.live import path, warm
from tests.support.market import SYMBOLS


class Fixed:
    """Answers the batch's size, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[int] = []
        self._fails = fails

    async def ask(self, x_BTF: NDArray[np.float32]) -> Answered:
        self.asked.append(len(x_BTF))
        if self._fails:
            raise RuntimeError("out of memory")
        return Answered(np.linspace(0.4, 0.6, len(x_BTF)), ("fallback",), 8, 0.6)


def test_windows_of_several_paths_are_asked_about_together() -> None:
    paths, asked = [path(), path(SYMBOLS)], []
    for live in paths:
        warm(live)
        asked += ready(live, 0)
    model = Fixed()
    decisions = asyncio.run(decide(model, asked, print))
    assert model.asked == [2]
    assert [one.probability for one in decisions] == [0.4, 0.6]
    assert [one.decision for one in decisions] == [False, True]
    assert [(one.model_version, one.threshold) for one in decisions] == [(8, 0.6)] * 2
    assert decisions[0].flags == ("fallback",)
    assert all(live.ledger.balanced() for live in paths)


def test_windows_without_an_answer_are_counted_and_said() -> None:
    lines: list[str] = []
    live = path()
    warm(live)
    assert asyncio.run(decide(Fixed(fails=True), ready(live, 0), lines.append)) == []
    assert lines == ["the model did not answer for 1 windows: out of memory"]
    assert live.ledger.reasons[Reason.INFERENCE_FAILED] == 1
    assert live.ledger.balanced()


def test_batches_are_no_larger_than_an_engine_takes() -> None:
    live = path()
    asked = []
    for sequence in range(1, 64 + 70):
        warm(live, sequence, count=1)
        asked += ready(live, 0)
    assert len(asked) == 70
    found = batches(asked)
    assert [len(batch) for batch in found] == [64, 6]
    assert [one for batch in found for one in batch] == asked


def test_a_dead_letter_names_its_error_and_origin() -> None:
    one = Received(Partition("ticks", 2), 41, b"A", b"broken", 5)
    letter = DeadLetter(reason=Reason.MALFORMED, detail="d" * 5000, at_ns=7, payload=b"broken")
    found = dead_letter(one, letter)
    assert (found.topic, found.key, found.value) == ("ticks.dlq", b"A", b"broken")
    assert found.headers.pop("detail") == b"d" * 1000
    assert found.headers == {
        "error": b"malformed", "topic": b"ticks", "partition": b"2", "offset": b"41", "at_ns": b"7"
    }  # fmt: skip


def test_a_payload_that_would_not_fit_is_cut_and_says_so() -> None:
    one = Received(Partition("ticks", 0), 0, b"A" * 200_000, b"x" * 1_000_000, 5)
    letter = DeadLetter(reason="malformed", detail="", at_ns=0, payload=one.value)
    found = dead_letter(one, letter)
    assert (len(found.key), len(found.value)) == (MOST_KEY, MOST_PAYLOAD)
    assert found.headers["cut_from"] == b"1000000"
