"""`tickline direct`: decide on an exchange's ticks in this process."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.live.venue import VenueSpec, open_venue, run_feed
from flows.cli.options import PANELS, SpecFile, settings_from_environment
from model_code.settings import FEATURE_COUNT, MAX_BATCH_SIZE, SEQUENCE_LENGTH

if TYPE_CHECKING:
    from infra.live.kafka.producer import Outbox
    from model_code.live.messages import Decision
    from model_code.live.path import Asked

app = typer.Typer()
out = Console()
SERVE_S = 0.005
FLUSH_S = 10.0
MOST_MEASURED = 1_000_000  # newest decisions whose latency is kept


@app.command(rich_help_panel=PANELS.serving)
def direct(
    symbols: Annotated[
        list[str],
        typer.Option(help="Decide on these instruments and their leaders; repeat for several."),
    ],
    venue_spec: VenueSpec = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Decide with this version, staged or serving.", show_default="the serving one"
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Record ticks and decisions to Kafka.")
    ] = False,
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
) -> None:
    """Decide on Binance's ticks in this process; stop with Ctrl-C or SIGTERM.

    No broker and no model server is between a tick and its decision: the version's
    engine answers here, and every decision is flagged in-process. With --record
    ticks and decisions are published to Kafka afterwards; a broker that is away
    delays no decision (docs/live.md).
    """
    from flows.runs.live import Desk
    from flows.runs.replay_model import load_model
    from infra.live.direct import Direct, Recorder
    from infra.live.kafka.clients import create_topics
    from infra.live.kafka.producer import Outbox

    settings = settings_from_environment()
    chosen = read_service_spec(spec, bootstrap, demo=demo)
    desk = Desk.open(settings, chosen, None, symbols, version)
    names = [one for some in desk.groups.values() for one in some]
    source = open_venue(names, venue_spec, _say)
    model = load_model(desk.folder, desk.manifest)
    for size in range(1, min(len(source.symbols), MAX_BATCH_SIZE) + 1):  # prepared once each
        model.predictor.predict(np.zeros((size, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
    outbox, recorder = None, None
    if record:
        kafka = chosen.kafka
        create_topics(kafka, [kafka.ticks[0], kafka.decisions])
        outbox = Outbox(kafka, _say)
        keys = {symbol: key for key, some in desk.groups.items() for symbol in some}
        recorder = Recorder(outbox, kafka.ticks[0], kafka.decisions, keys)
    latency_ns: deque[int] = deque(maxlen=MOST_MEASURED)

    def decided(decisions: "Sequence[Decision]", _: "Sequence[Asked]") -> None:
        latency_ns.extend(one.decided_ns - one.local_ns for one in decisions if one.decided_ns)

    async def run() -> Direct:
        found = Direct(
            desk.groups, desk.path, model.predictor, decided, _say,
            recorder=recorder, defer=asyncio.get_running_loop().call_soon,
        )  # fmt: skip
        serve = recorder.serve if recorder is not None else lambda: None
        await run_feed(source, found, SERVE_S, serve)
        found.stop()
        return found

    _say(f"version {model.version}, features {model.seen.feature_set}, in process")
    found = asyncio.run(run())
    _say(source.state)
    _say(str(found.ledger))
    if latency_ns:
        p50, p99 = np.percentile(latency_ns, (50, 99)) / 1e6
        _say(f"from the frame to the decision: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    if outbox is not None and recorder is not None:
        until = time.monotonic() + FLUSH_S
        while len(recorder) and time.monotonic() < until:
            recorder.serve()
        _flush(outbox, until)
        _say(
            f"recorded: {outbox.delivered:,} confirmed, "
            f"{recorder.recorded - outbox.delivered + len(recorder):,} unconfirmed, "
            f"{recorder.dropped:,} dropped"
        )


def _flush(outbox: "Outbox", until: float) -> None:
    from model_code.errors import StreamError

    try:
        outbox.flush(max(until - time.monotonic(), 0.1))
    except StreamError as error:
        _say(str(error))
    outbox.close()


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
