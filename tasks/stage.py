"""What every stage of a flow has in common: a content key, a persisted JSON result, retries.

A stage's key is the hash of its inputs' *content* (artefacts by sha256, never by path), of its own
source and that of every first-party module its work can reach, and of the libraries and processor
it runs on.
Equal key, equal answer: the stage comes back `Cached`, in this run or in any later one.
"""

import ast
import functools
import importlib.util
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer
from pydantic import BaseModel, ConfigDict, JsonValue
from rich.console import Console

from infra.logs import log
from model_code.artifacts import ArtifactRef, ArtifactStore, hash_bytes
from model_code.errors import ConfigError
from model_code.machine import processor
from model_code.settings import Settings
from tasks.faults import retry_if_transient
from tasks.heal import drop_useless_record
from tasks.reach import FIRST_PARTY, reach

console = Console()
RETRIES: dict[str, Any] = {  # with back-off, and only of what may mend itself
    "retries": 3,
    "retry_delay_seconds": [2.0, 8.0, 30.0],
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": retry_if_transient,
}
P = ParamSpec("P")
R = TypeVar("R")

LIBRARIES = (
    "great-expectations",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "pandas",
    "polars",
    "pyarrow",
    "scikit-learn",
    "torch",
)
OPTIONAL = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx")  # what they built only they can open


class RunRef(BaseModel):
    """The run a stage works for: where it writes and which MLflow run it logs to.

    Never part of a cache key: the same inputs give the same answer whoever asks.
    """

    model_config = ConfigDict(frozen=True)

    settings: Settings
    mlflow_run_id: str
    flow_run_id: str

    @property
    def store(self) -> ArtifactStore:
        """The content-addressed artefact store."""
        return ArtifactStore(self.settings.artifacts)


def stage(
    name: str, *, code: Sequence[str], run_name: str | None = None
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a cached, persisted Prefect task keyed by content.

    Args:
        name: the stage's name in Prefect, MLflow and the logs.
        code: modules that do the work beside those that the function names; they and what they
            import are part of the key.
        run_name: name of one task run, with the inputs in braces.
    """

    def wrap(function: Callable[P, R]) -> Task[P, R]:
        def key(_: TaskRunContext, inputs: dict[str, Any]) -> str:
            own, modules = reach(function)
            found = stage_key(sorted({*code, *modules}), inputs, own)
            found = f"{name.replace(' ', '-')}-{found}"
            drop_useless_record(found)
            return found

        decorate = task(
            name=name,
            task_run_name=run_name,
            persist_result=True,
            result_serializer=JSONSerializer(),
            cache_key_fn=key,
            on_completion=[announce_state],
            on_failure=[announce_state],
            **RETRIES,
        )
        return decorate(function)

    return wrap


def announce_state(_: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
    """Print a task run's end: state, name, seconds."""
    took = (state.timestamp - run.start_time).total_seconds() if run.start_time else 0.0
    colour = {"Cached": "cyan", "Completed": "green"}.get(state.name or "", "red")
    name = re.sub(r"-[0-9a-f]{3}$", "", run.name)  # the suffix Prefect adds to unnamed task runs
    console.print(f"  [{colour}]{state.name:<9}[/] {name}  [dim]{took:.1f} s")
    log("stage ended", stage=name, state=state.name, seconds=round(took, 3))


def stage_key(code: Sequence[str], inputs: Mapping[str, Any], own: str = "") -> str:
    """sha256 over inputs' content, the stage's code and the environment; `run` is left out."""
    content = {name: canonical(value) for name, value in inputs.items() if name != "run"}
    document = {
        "inputs": content,
        "code": [code_version(module) for module in code],
        "own": own,
        "environment": environment(),
    }
    return hash_bytes(json.dumps(document, sort_keys=True).encode())


def canonical(value: Any) -> JsonValue:
    """Reduce a stage input to what it means: artefacts to their hash, models to their fields.

    Raises:
        ConfigError: a type whose content cannot be told, which would switch caching off.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case ArtifactRef():
            return value.sha256
        case BaseModel():
            return {name: canonical(getattr(value, name)) for name in type(value).model_fields}
        case date():
            return value.isoformat()
        case Mapping():
            return {str(name): canonical(item) for name, item in value.items()}
        case Sequence():
            return [canonical(item) for item in value]
    raise ConfigError(f"a stage was given a {type(value).__name__}, which has no content key")


@functools.cache
def code_version(module: str) -> str:
    """sha256 over the source of a module and every first-party module it imports."""
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or name.split(".")[0] not in FIRST_PARTY:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue  # a name imported from a module, not a module
        sources[name] = Path(spec.origin).read_bytes()
        waiting += _imports(sources[name])
    return hash_bytes(b"".join(hash_bytes(sources[name]).encode() for name in sorted(sources)))


def _imports(source: bytes) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parent = node.module
            names.append(parent)
            if parent.split(".")[0] in FIRST_PARTY:
                names += [f"{parent}.{alias.name}" for alias in node.names if _is_package(parent)]
    return names


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def environment() -> str:
    """Python, library versions and processor: what can change an answer without changing code."""
    libraries = [f"{name}=={_version(name)}" for name in (*LIBRARIES, *OPTIONAL)]
    return " ".join([platform.python_version(), processor(), *libraries])


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
