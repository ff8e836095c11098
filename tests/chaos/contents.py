"""What the artefacts of a home folder hold, in a form that two homes can be compared by.

An artefact's files are compared by their bytes, with two exceptions. What the clock measured is
left out. TorchScript, whose bytes differ between processes, is compared by its answers.
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model_code.artifacts import ArtifactRef, ArtifactStore, hash_bytes, hash_path
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, Settings

# fields of `EngineRow`, of its facts, of `BenchmarkResult.machine` and of `EngineSidecar`
MEASURED_ROW = (
    "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "intervals", "drift", "open_p50_ms",
    "open_p99_ms", "throughput", "throughput_at", "floor_ms",
)  # fmt: skip
MEASURED_FACTS = ("peak_mib", "gpu_mib")
MEASURED_MACHINE = ("load_1min", "load_1min_after")
MEASURED_BUILD = ("build_seconds",)
CACHE_KEY = re.compile(r"([a-z-]+)-[0-9a-f]{64}")
DRAWN = {".png", ".md", ".html"}  # of the benchmark: from the measured latencies


class Entry(NamedTuple):
    """One file of an artefact that a stage's cached result refers to."""

    stage: str
    artefact: str
    file: str
    digest: str


def entries(settings: Settings) -> Counter[Entry]:
    """Every file that a cached result refers to, as often as results refer to it."""
    found: Counter[Entry] = Counter()
    for stage, artefact in _referenced(settings):
        files = [artefact] if artefact.is_file() else sorted(artefact.rglob("*"))
        for path in filter(Path.is_file, files):
            name = str(path.relative_to(artefact.parent))
            found[Entry(stage, artefact.name, name, _digest(path, artefact.name))] += 1
    return found


def stored(settings: Settings) -> list[Path]:
    """Every stored artefact, a file or a folder."""
    return sorted(settings.artifacts.glob("??/*/*"))


def unreferenced(settings: Settings) -> Counter[str]:
    """Names of stored artefacts that no cached result refers to."""
    referenced = {path for _, path in _referenced(settings)}
    return Counter(path.name for path in stored(settings) if path not in referenced)


def damaged(settings: Settings) -> list[str]:
    """Stored artefacts whose bytes are not those that they are stored under."""
    return [str(path) for path in stored(settings) if hash_path(path) != path.parent.name]


def result_of(settings: Settings, stage: str) -> Any:
    """The one cached result of a stage, as the plain values of its JSON."""
    (path,) = (settings.home / "results").glob(f"{stage.replace(' ', '-')}-*")
    return _result(path)["data"]


def _referenced(settings: Settings) -> Iterator[tuple[str, Path]]:
    for path in sorted((settings.home / "results").iterdir()):
        key = CACHE_KEY.fullmatch(path.name)
        if key is None:
            continue  # of a failure: Prefect keeps its exception
        stage = key[1].replace("-", " ")
        store = ArtifactStore(settings.artifacts)
        yield from ((stage, store.path(found)) for found in _references(_result(path)))


def _result(path: Path) -> Any:
    return json.loads(json.loads(path.read_bytes())["result"])  # JSON within JSON


def _references(value: Any) -> Iterator[ArtifactRef]:
    """The `ArtifactRef`s in a result."""
    if isinstance(value, dict):
        if value.keys() == ArtifactRef.model_fields.keys():
            yield ArtifactRef.model_validate(value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


def _digest(path: Path, artefact: str) -> str:
    if path.name == "model.ts":
        return _answers(path)
    if path.name == "engine.json":
        return _text(_without(json.loads(path.read_bytes()), MEASURED_BUILD))
    if artefact == "benchmark" and path.name == "benchmark.json":
        return _text(_benchmark(path))
    if artefact == "benchmark" and path.name == "latencies.parquet":
        return _rounds(path)
    if artefact == "benchmark" and path.suffix in DRAWN:
        return ""
    return hash_path(path)


def _answers(path: Path) -> str:
    """Answers of a TorchScript network to the same windows, bit for bit."""
    import torch

    windows = np.random.default_rng(0).normal(size=(8, SEQUENCE_LENGTH, FEATURE_COUNT))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit")
        network = torch.jit.load(str(path), "cpu")
        logits = network(torch.from_numpy(windows.astype(np.float32)))
    return hash_bytes(logits.numpy().tobytes())


def _benchmark(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_bytes())
    rows = [
        _without(row, MEASURED_ROW) | {"facts": _without(row["facts"], MEASURED_FACTS)}
        for row in values["rows"]
    ]
    machine = _without(values["machine"], MEASURED_MACHINE)
    return _without(values, ("ceilings",)) | {"rows": rows, "machine": machine}


def _rounds(path: Path) -> str:
    """Round of every timed request, and the engines that were timed."""
    import polars as pl

    table = pl.read_parquet(path)
    return _text([table.columns, len(table), table["round"].to_list()])


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    assert set(names) <= values.keys(), f"no longer there: {set(names) - values.keys()}"
    return {name: value for name, value in values.items() if name not in names}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
