"""Two hosts that share no folder: `python -m flows.demos.two_hosts [--data URI]`.

Host A runs a nightly. Its link is cut for ten seconds during training, and later its worker is
killed with all its processes. `tickline rerun --last-failed` on host B resumes the run at the next
epoch. B stages the candidate and opens its promotion, a reviewer approves on A, B's worker
promotes, and the reviewer renews the exception on A: both hosts write to one audit. All servers are
real. Where this process may make network namespaces, each host has one.
"""

import datetime as dt
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
import yaml
from rich.markup import escape

from flows.cli.options import Data, market_uri
from flows.demos.hosts import Network, namespaces, obstacle, on_loopback
from flows.demos.live_rig import Process
from flows.demos.moved_home import GOALS, SMALL
from flows.demos.promotion import LOOSEST, exception_until
from flows.demos.shared_servers import Shared, s3_environment, shared_servers
from flows.demos.site import Site
from flows.demos.story import Story, out
from infra.process import ProcessId
from infra.servers import HOST, environment, free_ports
from model_code.errors import TicklineError
from model_code.repository.exceptions import RENEWED
from model_code.repository.policy import policy_path
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import staged_versions
from model_code.settings import NightlySpec, Settings
from model_code.storage.objects import Objects
from model_code.storage.serving import serving_host

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

SERVERS, A, B = "servers", "host-a", "host-b"
CUT_S = 10.0
WAIT_S = 600.0  # for an epoch, a worker, a promotion
POLL_S = 0.25
DEPLOYMENT = "nightly/nightly"
CHECKPOINT = re.compile(r"epoch-(\d+)\.pt$")
REVIEWER = "ada"
SIMULATED = "simulated:"
# several epochs of some seconds, so that there is time for a fault between two
PACE = {
    "split": {"train_windows": 1_000, "validation_windows": 500, "test_windows": 500},
    "training": {"epochs": 6, "batch_size": 32, "learning_rate": 1e-3},
}
NEVER_CACHED = {"find days", "find champion"}  # they read the data source and the registry


def main(
    data: Data = None,
    loopback: Annotated[
        bool, typer.Option("--loopback", help="Both homes on loopback; no link is cut.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="Empty folder for homes and logs.", show_default="a temporary one"),
    ] = None,
) -> None:
    """Kill a nightly's worker on one host during training, recover and promote on the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    with tempfile.TemporaryDirectory(prefix="tickline-two-hosts-") as folder:
        try:
            market = market_uri(data, Settings().resolved())
            status = play((keep or Path(folder)).resolve(), market, loopback=loopback)
        except TicklineError as error:
            out.print(str(error), markup=False)
            status = 1
    raise typer.Exit(status)


def play(
    folder: Path,
    market: str | None,
    changes: Mapping[str, Any] | None = None,
    *,
    loopback: bool = False,
) -> int:
    """Run the story in an empty folder; return 1 if a figure differs.

    Args:
        folder: of both homes and of the servers' logs.
        market: URI of the ticks; both hosts read them there.
        changes: to the nightly's specification.
        loopback: even if there can be namespaces.

    Raises:
        TicklineError: a step fails.
    """
    story = Story()
    homes = {name: folder / name for name in (SERVERS, A, B)}
    for home in homes.values():
        home.mkdir(parents=True)
    why = "--loopback" if loopback else obstacle()
    with _own_environment(), ExitStack() as stack:
        if why is None:
            network = stack.enter_context(namespaces(tuple(homes), homes))
            story.say(f"{A} and {B}: network namespaces, each with its own address and host name")
        else:
            network = on_loopback(tuple(homes))
            story.say(f"{A} and {B}: two homes on loopback, and no link is cut ({why})")
        with story.step("start Postgres, S3, Prefect and MLflow"):
            shared = stack.enter_context(shared_servers(network.hosts[SERVERS], homes[SERVERS]))
        variables = s3_environment(shared.s3)
        os.environ.update(variables | environment(shared.settings(homes[SERVERS])))
        first, second = (
            Site(network.hosts[name], shared.settings(homes[name]), variables) for name in (A, B)
        )
        spec = _spec(folder, market, changes or {})
        last = Desk(story, network, first, second, shared, stack).play(spec)
    for table in story.tables():
        out.print(table)
    if not story.sound:
        return 1
    out.print(last, soft_wrap=True)
    return 0


@contextmanager
def _own_environment() -> Iterator[None]:
    """Leave out this process's settings for the length of the block, and change none for good."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("TICKLINE_", "PREFECT_", "MLFLOW_", "AWS_")):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _spec(folder: Path, market: str | None, changes: Mapping[str, Any]) -> NightlySpec:
    # as a desk installs it on every host
    goals = folder / "goals.yaml"
    goals.write_text(GOALS)
    return NightlySpec.model_validate(
        SMALL | PACE | {"market": market, "goals": str(goals)} | dict(changes)
    )


@dataclass(frozen=True)
class Desk:
    """The two sites with what they share, and the steps."""

    story: Story
    network: Network
    first: Site
    second: Site
    shared: Shared
    stack: ExitStack

    def play(self, spec: NightlySpec) -> str:
        """Run the steps in order; return the last line."""
        story = self.story
        with story.step(f"deploy the flows, start a worker on {A}, Triton on {B}"):
            self.first.python("-m", "infra.deploy")
            worker = self._worker(self.first)
            self._triton()
        with story.step(f"nightly on {A}, until its first epoch is in the store"):
            run = self._start(spec)
            self._worker(self.second)
            self._await_epoch(run, 1)
        self._cut(run)
        with story.step(f"kill -9 the worker on {A} with its flow, an epoch later"):
            self._await_epoch(run, self._epochs()[-1] + 1)
            completed = set(self._stages(run, "Completed"))
            self._check_host("first attempt ran on", A, run)
            worker.kill()
            killed_at = time.time()
            epochs = self._epochs()[-1]
            story.say(f"{epochs} of {spec.training.epochs} epochs are in the store")
        with story.step(f"tickline rerun --last-failed on {B}"):
            self._rerun()
        with story.step(f"the same nightly on {B}, to its end"):
            cached, redone = self._recovered(run, completed, epochs, killed_at)
        with story.step(f"promotion: {B} opens it, approved on {A}, promoted by {B}"):
            self._promote(simulated=(spec.market or SIMULATED).startswith(SIMULATED))
        with story.step(f"{A} renews the exception of the approval"):
            self._renew()
        with story.step("tickline audit on both hosts"):
            entries = self._audit()
        return (
            f"recovered on the other host: stages cached {cached}, epochs redone {redone}, "
            f"audit entries {entries} in one chain"
        )

    def _worker(self, site: Site) -> Process:
        process = site.process("worker", "-m", "flows.cli", "worker")
        self.stack.callback(process.kill)
        process.start().await_text("started!")
        return process

    def _triton(self) -> None:
        """Run Triton on B, for the policy that names it."""
        http, grpc, metrics = free_ports(3)
        site = self.second
        path = policy_path(site.settings.serving_repository)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "reviewers": [REVIEWER, "grace"],
            "loosest": LOOSEST,
            "limits": {"allow_simulated": True},
            "triton_url": f"{HOST}:{grpc}",
        }
        path.write_text(yaml.safe_dump(document))
        ports = {"http": http, "grpc": grpc, "metrics": metrics}
        keeper = site.process("keeper", "-m", "infra.triton.keeper", json.dumps(ports))
        self.stack.callback(keeper.stop)
        keeper.start()
        options = [f"--{name}-port={port}" for name, port in ports.items()]
        site.tickline("triton", "up", *options)

    def _start(self, spec: NightlySpec) -> UUID:
        """Trigger the nightly; return its id once a worker runs it."""
        from prefect.deployments import run_deployment

        parameters = {"spec": spec.model_dump(mode="json")}
        # the type depends on whether it is awaited
        run: Any = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0)
        _await(lambda: _read(run.id).state_name == "Running", "no worker runs the nightly")
        return UUID(str(run.id))

    def _epochs(self) -> list[int]:
        """Epochs of which the store has a checkpoint, ascending."""
        keys = Objects(self.shared.store).keys("checkpoints")
        return sorted(int(found[1]) for key in keys if (found := CHECKPOINT.search(key)))

    def _await_epoch(self, run: UUID, epoch: int) -> None:
        def reached() -> bool:
            state = _read(run).state
            if state is not None and state.is_final():
                raise TicklineError(f"the nightly ended early: {state.name}: {state.message}")
            return max(self._epochs(), default=0) >= epoch

        _await(reached, f"epoch {epoch} did not come to the store")

    def _cut(self, run: UUID) -> None:
        """Cut the link of A, and see that the run survives it."""
        if self.network.hub is None:
            return
        with self.story.step(f"the link of {A} is down for {CUT_S:.0f} s"):
            before = self._epochs()[-1]
            self.network.cut(A)
            time.sleep(CUT_S)
            during = self._epochs()[-1]
            self.network.restore(A)
        with self.story.step(f"{A} continues"):
            self.story.check("epochs in the store while the link was down", before, during)
            self._await_epoch(run, during + 1)
            self.story.check("attempts after the cut", 1, _read(run).run_count)

    def _rerun(self) -> None:
        """Resume on B as soon as nothing says that A still runs it."""
        said = ""

        def resumed() -> bool:
            nonlocal said
            try:
                self.second.tickline("rerun", "--last-failed")
            except TicklineError as error:
                words = " ".join(re.sub("[│╭╮╰╯─]", " ", str(error)).split())
                refusal = words.rpartition("tickline failed ")[2]
                # only the end of the lease differs from one to the next
                if refusal.partition("do: ")[0] != said:
                    self.story.say(f"refused: {escape(refusal)}")
                said = refusal.partition("do: ")[0]
                return False
            return True

        _await(resumed, "the run cannot be resumed", poll_s=5.0)

    def _recovered(
        self, run: UUID, completed: set[str], epochs: int, killed_at: float
    ) -> tuple[int, int]:
        """Follow the run to its end; count the cached stages and the epochs that were redone."""
        from flows.runs.rerun import follow
        from tasks.runs import mlflow_runs
        from tasks.runs.metric_names import logged_as

        story = self.story
        ended = follow(run, say=story.say)
        if not ended.is_completed():
            raise TicklineError(f"the nightly ended as {ended.name}: {ended.message}")
        story.check("attempts", 2, _read(run).run_count)
        self._check_host("second attempt ran on", B, run)
        cached = self._stages(run, "Cached")
        story.check(f"stages of {A} computed again on {B}", set(), completed - set(cached))
        mlflow = mlflow_runs.client(self.second.settings)
        ids = [found.experiment_id for found in mlflow.search_experiments()]
        nights = mlflow.search_runs(ids, f"tags.`{mlflow_runs.STAGE_TAG}` = 'training'")
        story.check("training runs in MLflow", 1, len(nights))
        history = mlflow.get_metric_history(nights[0].info.run_id, logged_as("train_loss"))
        steps = Counter(point.step for point in history)
        redone = sum(count - 1 for count in steps.values())
        later = [point.step for point in history if point.timestamp > killed_at * 1000]
        story.check("epochs in MLflow", list(range(1, max(steps) + 1)), sorted(steps))
        story.check("first epoch of the second attempt", epochs + 1, min(later, default=None))
        story.check("epochs redone", 0, redone)
        for name, site, wanted in ((B, self.second, [1]), (A, self.first, [])):
            found = staged_versions(site.settings.staging_repository)
            story.check(f"staged on {name}", wanted, list(found))
        return sum(cached.values()), redone

    def _promote(self, *, simulated: bool) -> None:
        from tasks.promotion.promotion_runs import runs_of

        story = self.story
        if simulated:  # no event starts it
            self.second.tickline("promote", "--version=1", "--started-by=bob", "--allow-simulated")
        _await(
            lambda: any(run.state and run.state.is_paused() for run in runs_of(1)),
            "no promotion waits for a decision",
        )
        (run,) = runs_of(1)
        terms = [f"--{name}={value}" for name, value in exception_until().items()]
        reason = "--reason=no baseline yet, all other goals are met"
        self.first.tickline("approve", "1", f"--reviewer={REVIEWER}", reason, *terms)
        _await(lambda: _is_final(run.id), "the promotion did not end")
        ended = _read(run.id)
        story.check("promotion", "Completed", ended.state_name)
        serving = serving_host(self.first.settings)
        story.check("serving host", self._host_name(B), serving and serving.host)
        champion = ServingRepository(self.second.settings.serving_repository).route().champion
        story.check(f"version that {B} serves", 1, champion and champion.version)
        self.second.tickline("triton", "status")  # fails if it does not answer its golden request

    def _renew(self) -> None:
        owner = exception_until()["owner"]
        last = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=31)
        terms = [f"--expires={last}", f"--reviewer={REVIEWER}", "--reason=as agreed with risk"]
        self.first.tickline("exceptions", "renew", "1", *terms)
        shown = " ".join(self.second.tickline("exceptions").split())
        self.story.check(f"{B} reads the new last day", True, owner in shown and f"{last}" in shown)

    def _audit(self) -> int:
        """Compare what both hosts read; the command checks the hash chain."""
        story = self.story
        of_first, of_second = (
            [json.loads(line) for line in site.tickline("audit", "--json").splitlines()]
            for site in (self.first, self.second)
        )
        numbers = [record["number"] for record in of_first]
        story.check("audit numbers", list(range(1, len(of_first) + 1)), numbers)
        story.check("audit on both hosts", "the same", _same(of_first, of_second))
        events = [record["event"] for record in of_first]
        for event in ("approved", "promoted", RENEWED):
            story.check(f"audit records of {event}", 1, events.count(event))
        for site in (self.first, self.second):
            self._say_audit(site)
        return len(of_first)

    def _say_audit(self, site: Site) -> None:
        lines = site.tickline("audit").splitlines()
        self.story.say(f"{site.host.name}: " + next(line for line in lines if "hash chain" in line))

    def _stages(self, run: UUID, state: str) -> "Counter[str]":
        """Stages in a state, by name; of a stage that was tried again, its last try."""
        from prefect import get_client

        from tasks.runs.task_runs import plain_name, task_runs

        with get_client(sync_client=True) as client:
            found = [
                plain_name(stage) for stage in task_runs(client, run) if stage.state_name == state
            ]
        return Counter(name for name in found if name not in NEVER_CACHED)

    def _check_host(self, name: str, wanted: str, run: UUID) -> None:
        from tasks.runs import mlflow_runs

        found = host_of(self.second.settings, mlflow_runs.FLOW_RUN_TAG, run)
        self.story.check(name, self._host_name(wanted), found)

    def _host_name(self, name: str) -> str:
        return name if self.network.hub else socket.gethostname()


def host_of(settings: Settings, tag: str, run: UUID) -> str:
    """Host of the process that owns a flow run's MLflow run, which `tag` leads to."""
    from tasks.runs import mlflow_runs
    from tasks.runs.heartbeat import PROCESS_TAG

    mlflow = mlflow_runs.client(settings)
    ids = [found.experiment_id for found in mlflow.search_experiments()]
    found = mlflow.search_runs(ids, f"tags.`{tag}` = '{run}' and tags.`{PROCESS_TAG}` LIKE '%'")
    return ", ".join(
        ProcessId.model_validate_json(one.data.tags[PROCESS_TAG]).host for one in found
    )


def _read(run: UUID) -> "FlowRun":
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def _is_final(run: UUID) -> bool:
    state = _read(run).state
    return state is not None and state.is_final()


def _same(one: object, other: object) -> str:
    return "the same" if one == other else "different"


def _await(reached: Callable[[], bool], failure: str, poll_s: float = POLL_S) -> None:
    """Wait until a condition holds.

    Raises:
        TicklineError: it does not in time.
    """
    deadline = time.monotonic() + WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise TicklineError(f"{failure} within {WAIT_S:.0f} s")
        time.sleep(poll_s)


if __name__ == "__main__":
    typer.run(main)
