"""From a night to rollback on real servers: `python -m flows.demos.promotion [--data URI]`.

A night, its promotion suspended and approved, a second night swapped in under live clients, a worse
candidate refused, and a rollback. Prefect, MLflow and Triton are real; the reviewers are made up.
"""

import asyncio
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.options import market_uri
from infra.triton.install import install
from infra.triton.server import running
from model_code.repository.audit import AuditLog
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.repository.serving import ServingRepository
from model_code.serving.routed import RoutedClient
from model_code.settings import MODEL_NAME, NightlySpec, PromotionSpec, Settings

if TYPE_CHECKING:
    from flows.runs.outcome import Outcome

out = Console(highlight=False)
CLIENTS = 4
STARTED = time.monotonic()
# those that every machine has and that change no answer: a champion whose engine is faster than any
# that passes the next night would turn that night down, which is another story
ENGINES = ("onnxruntime-fp32", "openvino-fp32")
# champion and candidate are the same engine: only many rounds make the gate sure, on a machine with
# busy neighbours, that one is at most 3% slower than the other
BENCHMARK = {"engines": ENGINES, "requests": 4000, "rounds": 200, "served": False}
SMALL = {
    "split": {"train_windows": 2048, "validation_windows": 512, "test_windows": 1024},
    "network": {"d_model": 16, "heads": 2, "layers": 1, "feed_forward": 32},
}


class Clients:
    """A few clients that follow the route and ask without pause."""

    def __init__(self, url: str, route_file: Path, candidate: Path) -> None:
        self.asked = self.failed = 0
        self._stop = threading.Event()
        windows = Replay.load(candidate / REPLAY_FILE).x_RTF

        async def one(client: RoutedClient) -> None:
            while not self._stop.is_set():
                self.asked += 1
                try:
                    await client.ask(windows[self.asked % len(windows)][None])
                except Exception:  # whatever it is: that client was not answered
                    self.failed += 1

        async def all_of_them() -> None:
            async with RoutedClient(url, route_file) as client:
                await asyncio.gather(*(one(client) for _ in range(CLIENTS)))

        self._thread = threading.Thread(target=lambda: asyncio.run(all_of_them()), daemon=True)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def report(self) -> None:
        """Say what they saw; the story ends here where a request was lost."""
        say(str(self))
        if self.failed or not self.asked:
            raise typer.Exit(stop("requests were lost: the story is not as it should be"))

    def __str__(self) -> str:
        return f"{CLIENTS} clients asked {self.asked:,} times meanwhile, {self.failed} failed"


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    small: Annotated[
        bool, typer.Option("--small", help="A small network and few windows: minutes less.")
    ] = False,
    goals: Annotated[Path | None, typer.Option(help="YAML of the gate's goals.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Folder to play it in; default: a fresh one.")
    ] = None,
) -> None:
    """Play the story and leave everything to look at in the home folder."""
    folder = home or Path(tempfile.mkdtemp(prefix="tickline-story-"))
    os.environ |= {"TICKLINE_HOME": str(folder), "TICKLINE_REVIEWERS": "ada,grace"}
    settings = Settings().resolved()
    install(settings, say=out.print)
    with running(settings, settings.serving_repository) as server:
        os.environ["TICKLINE_TRITON_URL"] = server.grpc_url
        settings = Settings().resolved()
        from flows.runs.local import connected

        say(f"Triton {server.grpc_url}, everything under {folder}")
        if small:
            say("small: a toy network on few windows; its numbers mean nothing")
        with connected(settings):
            play(settings, market_uri(data, settings), small, goals)
    say(f"look at it: TICKLINE_HOME={folder} tickline ui, TICKLINE_HOME={folder} tickline audit")


def play(settings: Settings, data: str | None, small: bool, goals: Path | None) -> None:
    """The scenes, in order."""
    from flows.runs import promotions

    simulated = data is None or data.startswith("simulated:")
    # a network of one epoch decides a quarter of the windows otherwise than one of three
    wanted = PromotionSpec(allow_simulated=simulated, max_disagreement=0.4)
    say("the first night: one epoch")
    first = candidate(night(data, small, goals, epochs=1))
    begin(settings, first, wanted)
    approve(settings, first, "no baseline, but all other goals are met")

    say("the second night: trained in full")
    second = candidate(night(data, small, goals, epochs=3))
    begin(settings, second, wanted)
    place = ServingRepository(settings.serving_repository)
    staged = settings.staging_repository / MODEL_NAME / str(second)
    with Clients(str(settings.triton_url), place.route_file, staged) as clients:
        approve(settings, second, "no worse than the champion on the newest day")
        time.sleep(1.0)
    clients.report()

    say("a worse night: its learning rate is a hundredth of a millionth")
    worse = night(data, small, goals, epochs=1, learning_rate=1e-8)
    if worse.registered is None:
        say(f"refused by the gate: {worse.verdict.reason}")
    else:
        raise typer.Exit(stop("the worse candidate passed the gate; look at the goals"))

    say(f"version {second} misbehaves, so to say")
    with Clients(str(settings.triton_url), place.route_file, staged) as clients:
        time.sleep(0.5)
        done = promotions.roll_back(settings, None, "bob", "story: it misbehaves")
        time.sleep(0.5)
    say(f"version {done.version} serves again, after {done.seconds:.1f} s")
    clients.report()
    for record in AuditLog(settings.audit_file).read():
        say(f"audit {record.number}: {record.event} version {record.facts.get('version')}")


def night(
    data: str | None, small: bool, goals: Path | None, epochs: int, learning_rate: float = 5e-4
) -> "Outcome":
    """One nightly on the data, and its verdict."""
    from flows.nightly import nightly
    from flows.runs.outcome import Outcome

    training = {"epochs": epochs, "learning_rate": learning_rate}
    spec = {
        "market": data,
        "goals": str(goals.resolve()) if goals else None,
        "training": training,
        "benchmark": BENCHMARK,
    }
    outcome = nightly(NightlySpec.model_validate(spec | (SMALL if small else {})))
    assert isinstance(outcome, Outcome)  # noqa: S101
    say(f"the gate says {outcome.verdict.verdict}: {outcome.verdict.reason}")
    return outcome


def candidate(outcome: "Outcome") -> int:
    """The night's registered version; the story ends where there is none."""
    if outcome.registered is None:
        raise typer.Exit(stop("this night's candidate failed its gate; the story ends here"))
    say(f"registered and staged as version {outcome.registered.version} ({outcome.engine})")
    return int(outcome.registered.version)


def begin(settings: Settings, version: int, wanted: PromotionSpec) -> None:
    """Start the promotion, which suspends."""
    from flows.runs import promotions

    promotions.start(settings, version, "bob", wanted)
    say(f"suspended: version {version} waits for a decision (tickline approve {version} ...)")


def approve(settings: Settings, version: int, reason: str) -> None:
    """Approve it and say what the server proved."""
    from flows.cli.promotion import say_outcome
    from flows.runs import promotions

    say(f"ada approves: {reason}")
    outcome = promotions.decide(settings, str(version), "approve", "ada", reason)
    assert outcome is not None, "no worker runs here"  # noqa: S101
    say_outcome(outcome)


def say(text: str) -> None:
    """A line of the timeline."""
    seconds = int(time.monotonic() - STARTED)
    out.print(f"[bold cyan]{seconds // 60:3d}:{seconds % 60:02d}[/]  [bold]{text}")


def stop(text: str) -> int:
    """Say why it ends early; the exit status."""
    say(text)
    return 1


if __name__ == "__main__":
    typer.run(main)
