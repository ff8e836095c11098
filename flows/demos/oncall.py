"""On-call demo with real servers: `python -m flows.demos.oncall [--data URI] [--spec YAML]`.

It starts the stack, deploys the flows, starts a nightly, kills its worker (SIGKILL) during
training and resumes with `tickline rerun --last-failed`. It prints every step with its time. It
uses its own home folder and empties that first.
"""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console

from flows.cli.options import Data, SpecFile, market_uri, read_spec, settings_from_environment
from infra import stack, stack_state
from model_code.errors import TicklineError
from model_code.settings import NightlySpec, Settings

out = Console(highlight=False)
TRAIN_TIMEOUT_S = 3600.0
DEPLOYMENT = "nightly/nightly"


class Timeline:
    """Prints lines with the minutes and seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        out.print(f"[dim]{minutes:02d}:{seconds:02d}[/]  {text}", soft_wrap=True)


def play(
    data: Data = None,
    spec: SpecFile = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running.")] = False,
) -> None:
    """Kill a nightly's worker during training, then recover."""
    base = settings_from_environment()
    wanted = read_spec(NightlySpec, spec, {"market": market_uri(data, base)})
    home = base.home / "story-oncall"
    stack.down(base.resolved(home=home))
    shutil.rmtree(home, ignore_errors=True)
    os.environ["TICKLINE_HOME"] = str(home)
    settings = base.resolved(home=home)
    line = Timeline()
    try:
        line.say("[bold]tickline up[/]")
        stack.up(settings, triton=False, extra=(), say=line.say)
        from flows.runs.local import connected

        with connected(settings):
            summary = _play_nightly(settings, wanted.model_dump(mode="json"), line)
    finally:
        if not keep:
            stack.down(settings)
            line.say("tickline down")
    out.print(summary)


def _play_nightly(settings: Settings, spec: dict[str, Any], line: Timeline) -> str:
    from prefect.deployments import run_deployment

    from flows.runs.explain import explain
    from flows.runs.rerun import follow, rerun
    from infra.deploy import deploy
    from infra.servers import environment

    line.say("deploying (up to a minute)...")
    line.say("deployed " + ", ".join(deploy(environment(settings))))
    # the type depends on whether it is awaited
    run: Any = run_deployment(DEPLOYMENT, parameters={"spec": spec}, timeout=0)
    line.say(f"nightly [bold]{run.name}[/] is triggered")
    watcher = threading.Thread(target=follow, args=(run.id,), kwargs={"say": line.say}, daemon=True)
    watcher.start()
    _await_epoch(settings, run.id)
    state = stack_state.read(settings)
    worker = state.service("worker") if state else None
    if worker is None or worker.pid is None:
        raise TicklineError("the worker had already exited")
    os.kill(worker.pid, signal.SIGKILL)
    line.say(f"[red]training has finished an epoch: kill -9 {worker.pid}, the worker[/]")
    _await_worker(settings, worker.pid)
    line.say("the supervisor has started another worker")

    found = explain(settings, None)
    watcher.join()
    line.say(f"[bold]tickline why[/]: {found.kind}: {found.cause}; in {found.stage}")
    line.say("[bold]tickline rerun --last-failed[/]")
    rerun(settings, None, say=line.say)
    ended = follow(run.id, say=line.say)
    line.say(f"nightly {run.name}: {ended.name}")
    if not ended.is_completed():
        raise TicklineError(
            f"the rerun ended as {ended.name}: {ended.message}",
            where=str(stack_state.log_path(settings, "worker")),
        )
    return _summarise(settings, run.id)


def _await_epoch(settings: Settings, run_id: UUID) -> None:
    from prefect import get_client

    deadline = time.monotonic() + TRAIN_TIMEOUT_S
    with get_client(sync_client=True) as client:
        while not list(settings.checkpoints.rglob("*.pt")):
            state = client.read_flow_run(run_id).state
            if (state and state.is_final()) or time.monotonic() > deadline:
                raise TicklineError(
                    f"no epoch was trained: {state.name if state else 'no state'}",
                    where=str(stack_state.log_path(settings, "worker")),
                )
            time.sleep(0.2)


def _await_worker(settings: Settings, killed: int) -> None:
    deadline = time.monotonic() + stack.UP_TIMEOUT_S
    while time.monotonic() < deadline:
        state = stack_state.read(settings)
        worker = state.service("worker") if state else None
        if worker and worker.status == "up" and worker.pid != killed:
            return
        time.sleep(0.2)
    raise TicklineError("the worker was not restarted")


def _summarise(settings: Settings, run_id: UUID) -> str:
    """Return the last line, from Prefect's and MLflow's records."""
    from prefect import get_client

    from tasks.runs import mlflow_runs
    from tasks.runs.task_runs import settled_task_runs

    with get_client(sync_client=True) as client:
        stages = settled_task_runs(client, run_id)
    cached = sum(stage.state_name == "Cached" for stage in stages)
    mlflow = mlflow_runs.client(settings)
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    runs = mlflow.search_runs(experiments, max_results=1000)
    (training,) = [run for run in runs if run.data.tags.get(mlflow_runs.STAGE_TAG) == "training"]
    history = mlflow.get_metric_history(training.info.run_id, "train_loss")
    redone = sum(count - 1 for count in Counter(point.step for point in history).values())
    orphans = sum(run.info.status == "RUNNING" for run in runs)
    return f"recovered: stages cached {cached}, epochs redone {redone}, orphan runs {orphans}"


if __name__ == "__main__":
    typer.run(play)
