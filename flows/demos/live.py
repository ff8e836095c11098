"""Live demo on real servers: `python -m flows.demos.live [--data URI]`.

Two nightlies are trained, the first one is promoted. Recorded ticks go through Kafka, the live
service and Triton. The second version is promoted under the stream. Then ticks are planted whose
bid sizes are in another unit, and the drift starts a retraining. Prefect, MLflow, Triton and
Redis are real; the broker is Tansu, in memory; the reviewers are simulated.
"""

import asyncio
import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.demos.live_rig import Process
from flows.demos.oncall import Timeline
from flows.demos.planted import planted
from flows.demos.promotion import DIFFERENT, exception_until, write_policy
from infra import stack, stack_state
from infra.live.monitoring.client import Client, ServiceAwayError
from infra.live.monitoring.document import Document
from infra.servers import HOST, environment, free_port
from infra.triton.install import install
from model_code.errors import TicklineError
from model_code.repository.serving import ServingRepository
from model_code.settings import PromotionSpec, Settings

out = Console(highlight=False)
DEPLOYMENT = "nightly/nightly"
TIMEOUT_S = 900.0
STREAM_S = 20.0  # how long the first version decides before the second one is promoted
# short windows of the ticks' time, because the recorded days last minutes; in them the usual limit
# of the PSI is breached without any drift, so that this one is high
JUDGE = {"window_s": 60.0, "every_s": 15.0, "sustained": 2, "psi_limit": 4.0, "auc_goal": 0.0}


def main(
    data: Annotated[str, typer.Option(help="Market store in the hive layout of docs/data.md.")],
) -> None:
    """Play the story; results stay in a temporary home folder."""
    home = Path(tempfile.mkdtemp(prefix="tickline-live-story-"))
    uri = str(Path(data).resolve())
    os.environ |= {
        "TICKLINE_HOME": str(home), "TICKLINE_MARKET": uri,
    }  # fmt: skip
    settings = Settings().resolved()
    install(settings, say=out.print)
    write_policy(settings, {"reviewers": ["ada", "grace"], "loosest": DIFFERENT})
    line = Timeline()
    try:
        line.say("[bold]tickline up --with redis,tansu[/]")
        stack.up(settings, triton=True, extra=("redis", "tansu"), say=line.say)
        from flows.runs.local import connected

        with connected(settings):
            play(settings, uri, line)
    finally:
        stack.down(settings)
        line.say("tickline down")
    out.print(f"results: TICKLINE_HOME={home} tickline ui, TICKLINE_HOME={home} tickline audit")


def play(settings: Settings, uri: str, line: Timeline) -> None:
    """Run the steps in order."""
    from flows.demos.promotion import candidate, run_nightly
    from model_code.market.store import open_market

    line.say("first nightly: one epoch")
    first = candidate(run_nightly(uri, False, None, epochs=1))
    promote(settings, first, line)
    line.say("second nightly: three epochs")
    second = candidate(run_nightly(uri, False, None, epochs=3))

    page = free_port()
    service = start_service(settings, uri, page)
    try:
        date = max(day.date for day in open_market(uri).catalog())
        line.say(f"tickline live: page http://{HOST}:{page}; tickline feed: {date}, real time")
        feed = start_feed(settings, "feed", uri, str(date), "1")
        shown = until(page, lambda one: one.state == "live", "no decisions")
        time.sleep(STREAM_S)
        line.say(decisions(until(page, lambda one: one.state == "live", "no decisions")))
        line.say(f"version {second} is promoted under the stream")
        promote(settings, second, line)
        shown = until(page, lambda one: answering(one) == {second}, "no answers of the new version")
        line.say(decisions(shown))
        if drift_claims(settings):
            raise TicklineError("drift was found before any was planted")
        feed.stop()
        line.say("the stream is stopped; no drift so far")

        drift(settings, Path(uri), date, line)
    finally:
        status = service.stop()
        for text in service.text.splitlines()[-8:]:
            out.print(text, markup=False, soft_wrap=True)
        line.say(f"tickline live ended with status {status}")


def drift(settings: Settings, store: Path, date: dt.date, line: Timeline) -> None:
    """Plant drifted ticks; wait for the event and for the retraining that it starts."""
    from infra.deploy import deploy

    line.say("deploying the flows, so that the event can start one")
    deploy(environment(settings))
    begun = dt.datetime.now(dt.UTC)
    with tempfile.TemporaryDirectory() as folder:
        later = planted(store, date, Path(folder))
        line.say(f"planted: the ticks of {date} again as {later}, bid sizes in another unit")
        feed = start_feed(settings, "feed-planted", folder, str(later), "10")
        wait(lambda: bool(drift_claims(settings)), "no sustained drift was found", feed)
        claim = drift_claims(settings)[0]
        line.say(f"[red]sustained drift[/], event tickline.live-drift: {claim}")
        wait(lambda: retraining(begun) is not None, "the event started no retraining", feed)
        name, state = retraining(begun) or ("", "")
        line.say(f"[bold]the event started nightly {name}: {state}[/]")
        feed.kill()


def start_service(settings: Settings, uri: str, page: int) -> Process:
    """`tickline live` with page, Redis and feedback, on the stack's servers."""
    ports = ports_of(settings)
    spec = settings.home / "live.yaml"
    spec.write_text(json.dumps({"log": {"rate": 0.05, "judge": JUDGE}}))
    command = [
        sys.executable, "-m", "flows.cli", "live", "--data", uri, "--demo", "--spec", str(spec),
        "--bootstrap", f"{HOST}:{ports['tansu']}", "--redis", f"redis://{HOST}:{ports['redis']}",
        "--page", str(page),
    ]  # fmt: skip
    variables = environment(settings) | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    ready = "-> tickline.decisions"
    return Process("live", command, settings.home, lambda one: ready in one.text, variables).start()


def start_feed(settings: Settings, name: str, uri: str, date: str, speed: str) -> Process:
    """`tickline feed` of a recorded day."""
    bootstrap = f"{HOST}:{ports_of(settings)['tansu']}"
    command = [
        sys.executable, "-m", "flows.cli", "feed", "--data", uri, "--date", date,
        "--speed", speed, "--demo", "--bootstrap", bootstrap,
    ]  # fmt: skip
    variables = environment(settings)
    return Process(name, command, settings.home, lambda _: True, variables).start(wait=False)


def ports_of(settings: Settings) -> dict[str, int]:
    """Ports of the running stack."""
    state = stack_state.read(settings)
    if state is None:
        raise TicklineError("the stack has stopped", where=str(stack_state.folder(settings)))
    return dict(state.plan.ports)


def promote(settings: Settings, version: int, line: Timeline) -> None:
    """Start the promotion, approve it, and wait until the version serves."""
    from flows.runs import promotions

    wanted = PromotionSpec(**DIFFERENT)
    promotions.start(settings, version, "bob", wanted)
    promotions.decide(
        settings, str(version), "approve", "ada", "the goals are met", **exception_until()
    )
    line.say(f"ada approves version {version}; the worker validates and promotes it")
    serving = ServingRepository(settings.serving_repository)

    def served() -> bool:
        route = serving.route()
        return route.champion is not None and route.champion.version == version

    wait(served, f"version {version} was not promoted: tickline audit")
    line.say(f"[bold]version {version} serves[/]")


def until(page: int, when: Callable[[Document], bool], problem: str) -> Document:
    """The page's state as soon as it is wanted."""
    client, found = Client(f"http://{HOST}:{page}", Settings()), list[Document]()

    def wanted() -> bool:
        try:
            found[:] = [asyncio.run(client.once())]
        except ServiceAwayError:
            return False
        return when(found[0])

    wait(wanted, problem)
    return found[0]


def wait(when: Callable[[], bool], problem: str, process: Process | None = None) -> None:
    """Wait until it is so.

    Raises:
        TicklineError: it is not in time; with the end of the process's log.
    """
    end = time.monotonic() + TIMEOUT_S
    while not when():
        if time.monotonic() > end:
            log = "" if process is None else f":\n{process.text[-1000:]}"
            raise TicklineError(f"{problem} within {TIMEOUT_S:.0f} s{log}")
        time.sleep(0.5)


def answering(shown: Document) -> set[int]:
    """Versions of the instruments' newest decisions."""
    return {one.version for one in shown.instruments}


def decisions(shown: Document) -> str:
    """What the page shows, in one line."""
    total = sum(one.decisions for one in shown.instruments)
    opportunities = sum(one.opportunities for one in shown.instruments)
    stages = {one.name: one for one in shown.stages}
    service = stages.get("service")
    p99 = "" if service is None or service.p99 is None else f", service p99 {service.p99:.2f} ms"
    versions = ", ".join(map(str, sorted(answering(shown))))
    return (
        f"page: {total:,} decisions, {opportunities:,} opportunities, version {versions}{p99}, "
        f"lost {shown.ledger.lost}"
    )


def drift_claims(settings: Settings) -> list[str]:
    """Sustained drift that the service has found, in words."""
    from infra.live.feedback.drift_event import records

    found = records(settings.home, dt.datetime.min.replace(tzinfo=dt.UTC))
    return ["; ".join(one.figures.breaches) for one in found]


def retraining(begun: dt.datetime) -> tuple[str, str] | None:
    """Name and state of the nightly that was started since, once it runs."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterStartTime

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        started = FlowRunFilter(start_time=FlowRunFilterStartTime(after_=begun))
        for run in client.read_flow_runs(flow_run_filter=started):
            if run.deployment_id == deployment.id and run.state is not None:
                return run.name, str(run.state.name)
    return None


if __name__ == "__main__":
    typer.run(main)
