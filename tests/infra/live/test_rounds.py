"""Rounds in flight: at most so many, published in their order."""

import asyncio

from infra.live.rounds import Rounds, Taken
from model_code.live.messages import Decision


class Desk:
    """Answers when told to; keeps what is published, failed and finished."""

    def __init__(self, most: int, fails: int | None = None) -> None:
        self.answers: dict[int, asyncio.Event] = {}
        self.published: list[int] = []
        self.finished: list[int] = []
        self.errors: list[BaseException] = []
        self._fails = fails
        self.rounds = Rounds(most, self.decide, self.publish, self.errors.append, self.finish)

    async def decide(self, one: Taken) -> list[Decision]:
        await self.answers[one.messages].wait()
        if one.messages == self._fails:
            raise OSError("no memory")
        return []

    async def publish(self, one: Taken, _: list[Decision]) -> None:
        if not self.errors:
            self.published.append(one.messages)

    def finish(self, one: Taken) -> None:
        self.finished.append(one.messages)

    def start(self, *numbers: int) -> None:
        for number in numbers:
            self.answers[number] = asyncio.Event()
            self.rounds.start(Taken(messages=number))

    async def answer(self, *numbers: int) -> None:
        for number in numbers:
            self.answers[number].set()
            for _ in range(5):
                await asyncio.sleep(0)


def test_a_late_answer_holds_back_those_of_later_rounds() -> None:
    async def play() -> None:
        desk = Desk(3)
        desk.start(1, 2, 3)
        assert desk.rounds.full
        await desk.answer(3, 2)
        assert desk.published == desk.finished == []
        await desk.answer(1)
        await asyncio.sleep(0.01)
        assert desk.published == desk.finished == [1, 2, 3]
        assert not desk.rounds.full

    asyncio.run(play())


def test_after_an_error_no_later_round_is_published() -> None:
    async def play() -> None:
        desk = Desk(3, fails=2)
        desk.start(1, 2, 3)
        await desk.answer(3, 1, 2)
        await asyncio.sleep(0.01)
        assert desk.published == [1]
        assert [str(error) for error in desk.errors] == ["no memory"]
        assert sorted(desk.finished) == [1, 2, 3]

    asyncio.run(play())


def test_cancelled_rounds_are_finished_without_being_published() -> None:
    async def play() -> None:
        desk = Desk(2)
        desk.start(1, 2)
        await asyncio.sleep(0)
        await desk.rounds.cancel()
        await asyncio.sleep(0)
        assert (desk.published, sorted(desk.finished), desk.errors) == ([], [1, 2], [])

    asyncio.run(play())
