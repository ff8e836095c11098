"""Promotion demo on real servers: `python -m flows.demos.promotion [--data URI]`.

A first nightly is approved and promoted. A second one is promoted under live clients. The gate
rejects a worse one. The second version is rolled back. Prefect, MLflow and Triton are real, the
reviewers are simulated.
"""

import asyncio
import datetime as dt
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from flows.cli.options import market_uri
from flows.demos.emergency import emergency
from infra.triton.install import install
from infra.triton.server import running
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import Terms
from model_code.repository.policy import policy_path
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.repository.serving import ServingRepository
from model_code.serving.routed import RoutedClient
from model_code.settings import MODEL_NAME, NightlySpec, PromotionSpec, Settings

if TYPE_CHECKING:
    from flows.runs.outcome import Outcome

out = Console(highlight=False)
CLIENTS = 4
STARTED = time.monotonic()
# exact engines that every machine has: if the first champion used a faster engine that the second
# nightly's gate rejects, the second candidate would fail as too slow
ENGINES = ("onnxruntime-fp32", "openvino-fp32")
# champion and candidate use the same engine: on a busy host the gate needs many rounds to show that
# the candidate is at most 3% slower
BENCHMARK = {"engines": ENGINES, "requests": 4000, "rounds": 200, "served": False}
# small networks of one and of three epochs disagree on a quarter of the windows
DIFFERENT: dict[str, Any] = {"max_disagreement": 0.4, "max_positive_disagreement": 0.8}
LOOSEST = {"allow_simulated": True, **DIFFERENT}
SMALL = {
    "split": {"train_windows": 2048, "validation_windows": 512, "test_windows": 1024},
    "network": {
        "KIND": "conv-transformer", "d_model": 16, "heads": 2, "layers": 1, "feed_forward": 32,
    },
}  # fmt: skip


class Clients:
    """Clients that follow the route and send requests without pause."""

    def __init__(self, url: str, route_file: Path, candidate: Path) -> None:
        self.asked = self.failed = 0
        self._stop = threading.Event()
        windows = Replay.load(candidate / REPLAY_FILE).x_RTF

        async def one(client: RoutedClient) -> None:
            while not self._stop.is_set():
                self.asked += 1
                try:
                    await client.ask(windows[self.asked % len(windows)][None])
                except Exception:  # any error: the client got no answer
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
        """Print the counts; end the demo if a request failed."""
        say(str(self))
        if self.failed or not self.asked:
            raise typer.Exit(stop("requests were lost: the demo failed"))

    def __str__(self) -> str:
        return f"{CLIENTS} clients sent {self.asked:,} requests, {self.failed} failed"


def main(
    data: Annotated[str | None, typer.Option(help="Market store; default: simulated.")] = None,
    small: Annotated[
        bool, typer.Option("--small", help="A small network on few windows; saves minutes.")
    ] = False,
    goals: Annotated[Path | None, typer.Option(help="YAML of the gate's goals.")] = None,
    home: Annotated[
        Path | None, typer.Option(help="Home folder; default: a new temporary one.")
    ] = None,
) -> None:
    """Run nightly, approval, swap, rejection and rollback; keep the results in the home folder."""
    folder = home or Path(tempfile.mkdtemp(prefix="tickline-story-"))
    os.environ |= {"TICKLINE_HOME": str(folder)}
    settings = Settings().resolved()
    install(settings, say=out.print)
    with running(settings, settings.serving_repository) as server:
        os.environ["TICKLINE_TRITON_URL"] = server.grpc_url
        settings = Settings().resolved()
        policy: dict[str, Any] = {"loosest": LOOSEST, "triton_url": server.grpc_url}
        signers = "".join(f"{name} {make_key(settings, name)}" for name in ("ada", "grace"))
        policy |= {"signatures": "required", "allowed_signers": signers}
        write_policy(settings, policy | {"reviewers": ["ada", "grace"]})
        from flows.runs.local import connected

        say(f"Triton {server.grpc_url}, home folder {folder}")
        if small:
            say("small: a toy network on few windows; its numbers mean nothing")
        with connected(settings):
            play(settings, market_uri(data, settings), small, goals)
    say(f"results: TICKLINE_HOME={folder} tickline ui, TICKLINE_HOME={folder} tickline audit")


def key_of(settings: Settings, name: str) -> Path:
    """Where a reviewer's private key is; in the demo all are in its home folder."""
    return settings.home / "keys" / name


def make_key(settings: Settings, name: str) -> str:
    """Make a reviewer's SSH key; return its public part."""
    key = key_of(settings, name)
    key.parent.mkdir(parents=True, exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@desk", "-f", str(key)]
    if shutil.which("ssh-keygen") is None:
        raise typer.Exit(stop("ssh-keygen is not installed: apt-get install openssh-client"))
    if not key.exists():
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return key.with_name(f"{name}.pub").read_text()


def write_policy(settings: Settings, document: Mapping[str, Any]) -> None:
    """Write the policy of the demo's serving repository."""
    path = policy_path(settings.serving_repository)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document)))


def play(settings: Settings, data: str | None, small: bool, goals: Path | None) -> None:
    """Run the steps of the demo in order."""
    from flows.runs import promotions

    simulated = data is None or data.startswith("simulated:")
    wanted = PromotionSpec(**DIFFERENT | ({"allow_simulated": True} if simulated else {}))
    say("first nightly: one epoch")
    first = candidate(run_nightly(data, small, goals, epochs=1))
    start_promotion(settings, first, wanted)
    approve(settings, first, "no baseline, but all other goals are met")

    say("second nightly: three epochs")
    second = candidate(run_nightly(data, small, goals, epochs=3))
    start_promotion(settings, second, wanted)
    serving = ServingRepository(settings.serving_repository)
    staged = settings.staging_repository / MODEL_NAME / str(second)
    with Clients(str(settings.triton_url), serving.route_file, staged) as clients:
        approve(settings, second, "no worse than the champion on the newest day")
        time.sleep(1.0)
    clients.report()

    say("third nightly, made worse on purpose: a perceptron with learning rate 1e-8")
    worse = run_nightly(data, small, goals, epochs=1, learning_rate=1e-8, kind="mlp")
    if worse.registered is None:
        say(f"rejected by the gate: {worse.verdict.reason}")
    else:
        raise typer.Exit(stop("the worse candidate passed the gate; check the goals"))

    say(f"simulated incident: version {second} is rolled back")
    with Clients(str(settings.triton_url), serving.route_file, staged) as clients:
        time.sleep(0.5)
        done = promotions.roll_back(settings, None, "bob", "demo: simulated incident")
        time.sleep(0.5)
    say(f"version {done.version} is serving again, after {done.seconds:.1f} s")
    clients.report()

    say(f"emergency: version {second} again, and MLflow dies in the middle of its swap")
    start_promotion(settings, second, wanted)
    with Clients(str(settings.triton_url), serving.route_file, staged) as clients:
        emergency(settings, second, say)
    clients.report()
    for record in AuditLog.of(settings).read():
        signed = ", signed" if record.facts.get("signature") else ""
        say(f"audit {record.number}: {record.event} version {record.facts.get('version')}{signed}")
    from tasks.promotion.verify_audit import verify_audit

    verified = verify_audit(settings)
    if verified.differences:
        raise typer.Exit(stop(f"tickline audit --verify: {verified.differences[0]}"))
    say(f"tickline audit --verify: {verified.signatures} signatures valid, no difference")


def run_nightly(
    data: str | None,
    small: bool,
    goals: Path | None,
    epochs: int,
    learning_rate: float = 5e-4,
    kind: str = "blend",
) -> "Outcome":
    """Run one nightly and print its verdict."""
    from flows.nightly import nightly
    from flows.runs.outcome import Outcome

    training = {"epochs": epochs, "learning_rate": learning_rate}
    spec = {
        "market": data,
        "goals": str(goals.resolve()) if goals else None,
        "network": {"KIND": kind},
        "training": training,
        "benchmark": BENCHMARK,
    }
    outcome = nightly(NightlySpec.model_validate(spec | (SMALL if small else {})))
    assert isinstance(outcome, Outcome)  # noqa: S101
    say(f"gate verdict: {outcome.verdict.verdict}, {outcome.verdict.reason}")
    return outcome


def candidate(outcome: "Outcome") -> int:
    """Return the registered version; end the demo if there is none."""
    if outcome.registered is None:
        raise typer.Exit(stop("the candidate failed its gate; the demo ends here"))
    say(f"registered and staged as version {outcome.registered.version} ({outcome.engine})")
    return int(outcome.registered.version)


def start_promotion(settings: Settings, version: int, wanted: PromotionSpec) -> None:
    """Start the promotion; it suspends until the decision."""
    from flows.runs import promotions

    promotions.start(settings, version, "bob", wanted)
    say(f"suspended: version {version} waits for a decision (tickline approve {version} ...)")


def approve(settings: Settings, version: int, reason: str) -> None:
    """Approve the promotion and print its outcome."""
    from flows.cli.promotion import say_outcome
    from flows.runs import promotions

    key = key_of(settings, "ada")
    say(f"ada approves and signs with {key.name}.pub: {reason}")
    outcome = promotions.decide(
        settings, str(version), "approve", "ada", reason, key=key, **exception_until()
    )
    assert outcome is not None, "no worker runs here"  # noqa: S101
    say_outcome(outcome)


def exception_until() -> Terms:
    """Owner and last day, for approvals that are an exception: the first has no baseline."""
    return {
        "owner": "grace",
        "expires": f"{dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)}",
    }


def say(text: str) -> None:
    """Print one line with the time since the start."""
    seconds = int(time.monotonic() - STARTED)
    out.print(f"[bold cyan]{seconds // 60:3d}:{seconds % 60:02d}[/]  [bold]{text}")


def stop(text: str) -> int:
    """Print why the demo ends early; return the exit status."""
    say(text)
    return 1


if __name__ == "__main__":
    typer.run(main)
