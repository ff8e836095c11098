"""Hands sampled decisions and all quote rows to the process that labels, judges and logs them.

Nothing here waits: a frame that finds the pipe's buffer full is dropped and counted, and labels
do not look across the gap.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from infra.live.feedback.spec import LogSpec
from infra.live.feedback.worker import Report, Setup
from model_code.live.feedback.frames import Frame, Sampled, SeenRow, pack, unpack
from model_code.live.feedback.sampling import draw
from model_code.live.fold import Row
from model_code.live.messages import Decision, Quote
from model_code.live.path import Asked

MOST_ROWS = 512  # in a frame
EVERY_S = 0.2
BUFFER_BYTES = 8 << 20
RESTART_S = 30.0


class PredictionLog:
    """A sink of decisions, and a watcher of rows (`LivePath(watch=log.watch)`).

    Args:
        spec: sample, files, retention and limits.
        group: of the services, names the event.
        folder: of the log and the drift records.
        environment: of the process, from `infra.servers.environment`.
        say: called with each line for the log.
    """

    def __init__(
        self,
        spec: LogSpec,
        group: str,
        folder: Path,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        setup = Setup(spec.model_dump_json(), group, str(folder))
        self._command = [sys.executable, "-m", "infra.live.feedback.worker"]
        self._command.append(msgspec.json.encode(setup).decode())
        self._spec, self._environment, self._say = spec, environment, say
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None
        self._closing = False
        self._rows: list[SeenRow] = []
        self._sampled: list[Sampled] = []
        self._gap = False
        self._flushed = 0.0
        self.report = Report({}, {}, {}, [])
        self.sampled = self.logged = self.dropped = self.restarts = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the process; one that ends is started again after `RESTART_S`."""
        self._process = await self._new_process()
        self._following = asyncio.create_task(self._follow())

    def watch(self, quote: Quote, row: Row, begins: bool) -> None:
        """See a valid row."""
        self._rows.append(
            SeenRow(
                quote.symbol, quote.session, quote.sequence,
                row.timestamp, row.bid_price, row.ask_price, begins,
            )
        )  # fmt: skip
        if len(self._rows) >= MOST_ROWS:
            self._flush()

    async def write(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        """Sample decisions; hand them over now and then."""
        for decision, x_TF in matched(decisions, asked):
            chance = draw(decision.symbol, decision.session, decision.sequence)
            logged = chance < self._spec.rate
            if logged or chance < self._spec.judge.rate:
                window = x_TF.tobytes() if logged else None
                self._sampled.append(Sampled(decision, x_TF[-1].tobytes(), window))
                self.sampled += 1
                self.logged += logged
        if time.monotonic() - self._flushed >= EVERY_S:
            self._flush()

    async def close(self, timeout_s: float = 20.0) -> None:
        """Hand over what waits, and wait until it is written, at most so long."""
        process, following = self._process, self._following
        if process is None or process.stdin is None or following is None:
            return
        self._flush()
        self._closing = True
        if process.returncode is not None:
            following.cancel()
        process.stdin.close()
        done, _ = await asyncio.wait({following}, timeout=timeout_s)
        if not done:
            self._say(f"the prediction log was not written within {timeout_s:g} s")
            process.kill()
            await asyncio.wait({following}, timeout=timeout_s)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._rows and not self._sampled:
            return
        frame = Frame(self._rows, self._sampled, self._gap)
        self._rows, self._sampled = [], []
        stdin = None if self._process is None else self._process.stdin
        if (
            stdin is None
            or stdin.is_closing()
            or stdin.transport.get_write_buffer_size() > BUFFER_BYTES
        ):
            self.dropped += len(frame.sampled)
            self._gap = True
            return
        stdin.write(pack(frame))
        self._gap = False

    async def _new_process(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | self._environment,
            start_new_session=True,  # Ctrl-C must not reach it
        )

    async def _follow(self) -> None:
        while self._process is not None:
            await self._read(self._process)
            code = await self._process.wait()
            if self._closing:
                return
            self._say(f"the prediction log's process ended with {code}; decisions continue")
            self._gap = True
            self.restarts += 1
            await asyncio.sleep(RESTART_S)
            with contextlib.suppress(OSError):  # no memory: tried again after the next wait
                self._process = await self._new_process()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await process.stdout.readexactly(4)
                body = await process.stdout.readexactly(int.from_bytes(head, "big"))
                self.report = unpack(Report, body)
                for line in self.report.lines:
                    self._say(line)


def matched(
    decisions: Sequence[Decision], asked: Sequence[Asked]
) -> Iterator[tuple[Decision, NDArray[np.float32]]]:
    """Each decision with its window; windows without a decision are passed over."""
    windows = (
        (waiting, one.x_BTF[place]) for one in asked for place, waiting in enumerate(one.waiting)
    )
    for decision in decisions:
        for waiting, x_TF in windows:
            quote = waiting.quote
            if (quote.symbol, quote.session, quote.sequence) == (
                decision.symbol, decision.session, decision.sequence,
            ):  # fmt: skip
                yield decision, x_TF
                break
