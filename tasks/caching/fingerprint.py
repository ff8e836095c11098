"""A stage's cache key: its inputs' content, the source it depends on, the environment.

Equal key, equal result. A key does not depend on paths, the run or the time.
"""

import ast
import functools
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from model_code.artifacts import ArtifactRef, hash_bytes
from model_code.errors import ConfigError
from model_code.machine import processor

FIRST_PARTY = ("model_code", "infra", "tasks")
# packages that store, log and show results; they do not compute them
BOOKKEEPING = ("tasks.caching", "tasks.runs")
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
    "shap",
    "torch",
)
OPTIONAL = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx")  # needed to load engines they built


def stage_key(module: str, inputs: Mapping[str, Any]) -> str:
    """sha256 over inputs' content, the stage's source and the environment; `run` is excluded.

    Args:
        module: dotted name of the stage's module.
        inputs: the stage's arguments by name.

    Raises:
        ConfigError: an input has no content key.
    """
    content = {name: canonical(value) for name, value in inputs.items() if name != "run"}
    document = {
        "inputs": content,
        "code": source_fingerprint(module),
        "environment": environment(),
    }
    return hash_bytes(json.dumps(document, sort_keys=True).encode())


def canonical(value: Any) -> JsonValue:
    """Reduce a stage input to its content: artefacts to their hash, models to their fields.

    Raises:
        ConfigError: a type without a content key, which would disable caching.
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
def source_fingerprint(module: str) -> str:
    """sha256 over the source of a module and of every first-party module it imports."""
    sources = import_closure(module)
    return hash_bytes(b"".join(hash_bytes(sources[name]).encode() for name in sorted(sources)))


def import_closure(module: str) -> dict[str, bytes]:
    """Return source by module name: the module and everything it imports, directly or not.

    Imports inside functions count. Bookkeeping and third-party packages do not.
    """
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or (name != module and not _counts(name)):
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue  # a name imported from a module, not a module
        sources[name] = Path(spec.origin).read_bytes()
        waiting += _imports(sources[name])
    return sources


def _counts(name: str) -> bool:
    first_party = name.partition(".")[0] in FIRST_PARTY
    return first_party and not any(f"{name}.".startswith(f"{skip}.") for skip in BOOKKEEPING)


def _imports(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module.partition(".")[0] in FIRST_PARTY and _is_package(node.module):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


@functools.cache
def environment() -> str:
    """Python, library versions and processor: they change results without a code change."""
    libraries = [f"{name}=={_version(name)}" for name in (*LIBRARIES, *OPTIONAL)]
    return " ".join([platform.python_version(), processor(), *libraries])


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
