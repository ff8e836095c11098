"""The process that labels, judges and logs live decisions: `python -m infra.live.feedback.worker`.

It reads frames from standard input and writes reports to standard output. It is a process of its
own with a lower priority, so that neither the figures nor the disk delay a decision. It ends when
its input does, even if the service was killed, and then writes what it has.
"""

import datetime as dt
import os
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from infra.live.feedback.drift_event import DriftEvents
from infra.live.feedback.log_files import LogFiles
from infra.live.feedback.spec import LogSpec
from model_code.errors import DataError, TicklineError
from model_code.live.feedback.figures import Figures
from model_code.live.feedback.frames import Frame, Sampled, pack, unpack
from model_code.live.feedback.judge import Judge, Judgement
from model_code.live.feedback.labels import Labelled
from model_code.live.feedback.reference import LiveReference
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings

NICE = 10
REPORT_S = 1.0
RETRY_S = 30.0


class Setup(msgspec.Struct, frozen=True):
    """What the process is started with.

    Attributes:
        spec: JSON of a `LogSpec`.
        group: of the services.
        folder: of the log and the drift records.
    """

    spec: str
    group: str
    folder: str


class Report(msgspec.Struct, frozen=True):
    """What the process has done so far.

    Attributes:
        counts: decisions by what became of them.
        figures: of the newest window, by model version.
        streaks: windows in a row with a breach, by model version.
        lines: to print, since the last report.
    """

    counts: dict[str, int]
    figures: dict[int, Figures]
    streaks: dict[int, int]
    lines: list[str]


class Worker:
    """Judges frames.

    Args:
        setup: see there.
        settings: say where the versions and Prefect are.
    """

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self._spec = LogSpec.model_validate_json(setup.spec)
        self._settings, folder = settings, Path(setup.folder)
        self._lines: list[str] = []
        self._files = LogFiles(folder / "log", self._spec, self._lines.append)
        self._events = DriftEvents(folder / "drift", setup.group, settings)
        self._judges: dict[int, Judge | None] = {}
        self._figures: dict[int, Figures] = {}
        self._streaks: dict[int, int] = {}
        self._newest_ns: dict[int, int] = {}
        self._labelled = self._unlabelled = self._emitted = self._gaps = 0
        self._retry_at = 0.0

    def take(self, frame: Frame) -> None:
        """Label, log and judge a frame."""
        if frame.gap:
            self._gap()
        by_version: dict[int, list[Sampled]] = {}
        for one in frame.sampled:
            by_version.setdefault(one.decision.model_version, []).append(one)
        for version, sampled in by_version.items():
            if version not in self._judges:
                self._judges[version] = self._judge_of(version)
            self._newest_ns[version] = max(one.decision.local_ns for one in sampled)
        for version, judge in self._judges.items():
            sampled = by_version.get(version, [])
            if judge is None:
                self._done([Labelled(one, -1) for one in sampled])
                continue
            try:
                self._done(judge.take(frame.rows, sampled))
            except DataError as error:
                self._lines.append(f"labels begin anew: {error}")
                self._gap()
            self._judge(version, judge)
        self._retire()
        self._send()

    def report(self) -> Report:
        """What was done; lines only once."""
        lines, self._lines[:] = list(self._lines), []
        files = self._files
        counts = {
            "labelled": self._labelled,
            "unlabelled": self._unlabelled,
            "waiting": sum(one.waiting for one in self._judges.values() if one is not None),
            "logged": files.written,
            "log_dropped": files.dropped + files.failed,
            "gaps": self._gaps,
            "events": self._emitted,
        }
        return Report(counts, dict(self._figures), dict(self._streaks), lines)

    def close(self) -> None:
        """Label what can be, and write it."""
        for judge in self._judges.values():
            self._done([] if judge is None else judge.finish())
        self._files.close()

    def _judge_of(self, version: int) -> Judge | None:
        try:
            folder = version_folder(self._settings, version)
            return Judge(self._spec.judge, LiveReference.load(folder))
        except TicklineError as error:
            self._lines.append(f"version {version} is logged but not judged: {error}")
            return None

    def _retire(self) -> None:
        """Forget versions without a decision for two windows: their figures no longer change."""
        last_ns = max(self._newest_ns.values(), default=0)
        limit_ns = last_ns - round(2e9 * self._spec.judge.window_s)
        for version in [one for one, at_ns in self._newest_ns.items() if at_ns < limit_ns]:
            judge = self._judges.pop(version)
            self._done([] if judge is None else judge.finish())
            del self._newest_ns[version]
            self._figures.pop(version, None)
            self._streaks.pop(version, None)

    def _gap(self) -> None:
        self._gaps += 1
        for judge in self._judges.values():
            self._done([] if judge is None else judge.finish())

    def _done(self, labelled: list[Labelled]) -> None:
        for one in labelled:
            self._labelled += one.label >= 0
            self._unlabelled += one.label < 0
        self._files.add(one for one in labelled if one.sampled.window is not None)

    def _judge(self, version: int, judge: Judge) -> None:
        found = judge.judge()
        if found is None:
            return
        self._figures[version], self._streaks[version] = found.figures, found.streak
        now = dt.datetime.now(dt.UTC)
        if found.sustained and self._claim(found, now):
            self._emitted += 1
            self._retry_at = 0.0
            self._lines.append(
                f"sustained breach of version {version}: {'; '.join(found.figures.breaches)}"
            )

    def _claim(self, found: Judgement, now: dt.datetime) -> bool:
        try:
            return self._events.claim(found.figures, found.streak, now)
        except OSError as error:  # a full disk must not end the log
            self._lines.append(f"the sustained breach was not written down: {error}")
            return False

    def _send(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY_S
        try:
            sent = self._events.send(dt.datetime.now(dt.UTC))
        except OSError as error:
            self._lines.append(f"event of the drift: {error}")
            return
        if sent is not None:
            outcome = "accepted" if sent else "not sent, Prefect does not answer; will try again"
            self._lines.append(f"event of the drift: {outcome}")


def version_folder(settings: Settings, version: int) -> Path:
    """The folder of a version that serves or was approved, else of a staged one."""
    serving = ServingRepository(settings.serving_repository)
    staged = settings.staging_repository / MODEL_NAME / str(version)
    return serving.folder(version) if version in serving.known() else staged


def run(source: BinaryIO, sink: BinaryIO, worker: Worker) -> None:
    """Serve frames until the input ends."""
    reported = 0.0
    while len(head := source.read(4)) == 4:
        body = source.read(int.from_bytes(head, "big"))
        try:
            worker.take(unpack(Frame, body))
        except msgspec.DecodeError:  # cut off: the service was killed
            break
        if time.monotonic() - reported >= REPORT_S:
            reported = time.monotonic()
            _reply(sink, worker)
    worker.close()
    _reply(sink, worker)


def _reply(sink: BinaryIO, worker: Worker) -> None:
    try:
        sink.write(pack(worker.report()))
        sink.flush()
    except BrokenPipeError:
        pass  # the service is gone; the log is still written


def main() -> None:
    """Serve standard input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is the end
    os.nice(NICE)
    setup = msgspec.json.decode(sys.argv[1].encode(), type=Setup)
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library's print is no report
    run(sys.stdin.buffer, output, Worker(setup, Settings().resolved()))


if __name__ == "__main__":
    main()
