"""A million recorded ticks as fast as possible: `python -m flows.demos.live_soak [--data URI]`.

Real broker, Redis, Triton and service, in a temporary home folder. Days are played again, each pass
later by whole days, until there are enough ticks.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.live.load import recorded
from flows.cli.options import market_uri, settings_from_environment
from flows.demos.live_load import SIMULATED
from flows.demos.live_rig import Process, Rig, private, rig
from flows.demos.live_version import provide
from model_code.errors import DataError
from model_code.live.ledger import Ledger
from model_code.live.read_back import ReadBack
from model_code.live.reasons import Column

if TYPE_CHECKING:
    from model_code.live.messages import Tick
    from model_code.repository.manifest import Manifest

out = Console(highlight=False)
WARM = 0.2  # of the ticks; afterwards the memory must not grow
REPORT_S = 0.5
TIMEOUT_S = 1800.0
MIB = 2**20


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    ticks: Annotated[int, typer.Option(help="How many.")] = 1_000_000,
    servers: Annotated[str, typer.Option(help="Servers to run.")] = "tansu,redis,triton",
    option: Annotated[
        list[str] | None, typer.Option(help="Another option of tickline live.")
    ] = None,
    every_window: Annotated[
        bool, typer.Option(help="Decide on every window; otherwise a backlog is conflated.")
    ] = True,
) -> None:
    """Feed, decide, read back, and compare the counts; exit 1 if one is wrong."""
    source = settings_from_environment()
    uri = market_uri(data, source) or SIMULATED
    home = Path(tempfile.mkdtemp(prefix="tickline-live-"))
    try:
        settings = private(home)
        _, manifest = provide(settings, source, uri, out.print)
        with rig(settings, uri, names=servers.split(",")) as live:
            options = [*(option or ()), *(["--every-window"] if every_window else [])]
            sound = play(live, manifest, ticks, options)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    raise typer.Exit(0 if sound else 1)


def play(live: Rig, manifest: "Manifest", count: int, options: Sequence[str]) -> bool:
    """Run the soak and print its last line; whether every count is as it must be."""
    from infra.live.load import Decisions
    from model_code.market.store import open_market

    store = open_market(live.store)
    service = live.service(*options, report_s=REPORT_S)
    back, memory = ReadBack(), Memory(service, int(WARM * count))
    ticks = islice(recorded(store, manifest), count)
    begun = time.monotonic()
    with Decisions(live.kafka, back.take) as decisions:
        feeding = threading.Thread(target=feed, args=(live, manifest, ticks), daemon=True)
        feeding.start()
        while memory.look().taken < count and service.running:
            if time.monotonic() > begun + TIMEOUT_S:
                break
            time.sleep(REPORT_S)
        feeding.join(1.0)
        seconds = time.monotonic() - begun
        status = service.stop()
        decisions.settle()
    ledger = Ledger.parse(service.text)
    out.print(f"{ledger.taken / seconds:,.0f} ticks/s, service's exit status {status}")
    out.print(f"{back.decided:,} decisions read back, {ledger.columns[Column.DECIDED]:,} decided")
    for text in service.text.splitlines():
        if text.startswith("requests: "):  # how many the fallback answered
            out.print(text)
    warm, last = memory.warm / MIB, memory.last / MIB
    out.print(f"service, MiB: {warm:.0f} after {memory.warm_at:,} ticks, {last:.0f} at the end")
    total = with_read_back(ledger, back, count)
    out.print(f"{total}; memory {memory.grown / MIB:+.0f} MiB", soft_wrap=True)
    faults = total.lost + total.reordered + total.duplicated
    return status == 0 and ledger.balanced() and ledger.taken == count and not faults


def with_read_back(ledger: Ledger, back: ReadBack, sent: int) -> Ledger:
    """The service's ledger, with what was lost, reordered and duplicated on either side of it."""
    decided = ledger.columns[Column.DECIDED]
    return Ledger(
        taken=ledger.taken,
        columns=ledger.columns,
        lost=ledger.lost + max(sent - ledger.taken, 0) + max(decided - back.decided, 0),
        reordered=ledger.reordered + back.reordered,
        duplicated=ledger.duplicated
        + back.duplicated
        + max(ledger.taken - sent, 0)
        + max(back.decided - decided, 0),
    )


def feed(live: Rig, manifest: "Manifest", ticks: "Iterator[Tick]") -> None:
    """Publish the ticks as fast as the broker takes them."""
    from infra.live.kafka.feed import publish
    from infra.live.kafka.producer import Outbox

    outbox = Outbox(live.kafka)
    publish(outbox, live.kafka.ticks[0], ticks, live.keys(manifest))
    outbox.flush(TIMEOUT_S)


class Memory:
    """Resident memory of a service, and how much it grew after its warm-up.

    Args:
        service: prints its ledger every half second.
        warm_at: ticks after which the warm-up is over.
    """

    def __init__(self, service: Process, warm_at: int) -> None:
        self._process, self.warm_at = service, warm_at
        self.warm = self.last = self._most = 0

    def look(self) -> Ledger:
        """Measure; the newest ledger."""
        try:
            ledger = Ledger.parse(self._process.text[-2000:])
        except DataError:
            return Ledger()  # none was printed yet
        if self._process.running:
            self.last = self._process.child.memory_info().rss
        if not self.warm and ledger.taken >= self.warm_at:
            self.warm = self.last
        self._most = max(self._most, self.last if self.warm else 0)
        return ledger

    @property
    def grown(self) -> int:
        """Bytes between the end of the warm-up and the most afterwards."""
        return self._most - self.warm


if __name__ == "__main__":
    typer.run(main)
