"""Compare a staged version with what its night wrote to MLflow.

Who can write to the staging folder can write any manifest that fits its files. The registry and the
night's run are elsewhere: a promotion continues only if all of them agree.
"""

import tempfile
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from model_code.benchmark.result import BenchmarkResult
from model_code.benchmark.verdict import Verdict
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.manifest import Manifest
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.aliases import Aliases
from tasks.runs.version_tags import STAGED_BY_TAG, STAGED_TAG, THRESHOLD_TAG

VERDICT, BENCHMARK = "gate/verdict.json", "benchmark/benchmark.json"


def require_registered(settings: Settings, candidate: Path) -> None:
    """Compare a staged version with the registry and with the benchmark and gate of its night.

    Every file counts: the engine, its configuration, golden and recorded requests by their hashes
    in the manifest, and the manifest by its own hash in the registry.

    Args:
        settings: name the registry.
        candidate: the version's folder, which fits its own manifest.

    Raises:
        PromotionError: the registry has no such version, or the night recorded too little.
        IntegrityError: they differ; the message names what.
    """
    manifest = Manifest.load(candidate)
    tags = Aliases(settings).tags(manifest.version)
    if STAGED_TAG not in tags:
        raise PromotionError(
            f"the registry does not say what was staged as version {manifest.version}",
            where=f"tag {STAGED_TAG} of the version in MLflow",
            remedy="promote a version of a newer night: tickline nightly",
        )
    sidecar = EngineSidecar.load(candidate)
    # the version's tags first: its run id is needed for the rest
    differing = _differing(tags_of(manifest, sidecar), tags)
    if not differing:
        differing = _against_run(mlflow_runs.client(settings), manifest, sidecar)
    if not differing and tags[STAGED_TAG] != manifest.identity:
        differing = ["manifest, configuration or recorded requests"]
    if differing:
        raise IntegrityError(
            f"version {manifest.version} is staged with another {', '.join(differing)} than its "
            "night recorded",
            where=f"{candidate}; MLflow run {tags.get(STAGED_BY_TAG)}",
            remedy="do not promote it: find out who changed the staging folder or MLflow, then "
            "promote a version of a newer night",
        )


def tags_of(manifest: Manifest, sidecar: EngineSidecar) -> dict[str, str]:
    """The version's tags as they must be for this manifest."""
    return {
        STAGED_BY_TAG: manifest.mlflow_run_id,
        "verdict": manifest.verdict,
        "promotable": str(manifest.promotable).lower(),
        "simulated": str(manifest.simulated).lower(),
        "engine": sidecar.engine,
        "onnx_sha256": manifest.onnx_sha256,
        "data_sha256": manifest.data_sha256,
        THRESHOLD_TAG: repr(manifest.threshold),
    }


def _against_run(mlflow: MlflowClient, manifest: Manifest, sidecar: EngineSidecar) -> list[str]:
    """What differs from the night's benchmark and gate.

    Raises:
        PromotionError: they recorded nothing.
    """
    verdict = Verdict.model_validate_json(_artifact(mlflow, manifest, VERDICT))
    measured = BenchmarkResult.model_validate_json(_artifact(mlflow, manifest, BENCHMARK))
    row = measured.row(sidecar.engine)
    known = {
        "gate verdict": verdict.verdict,
        "promotable": verdict.promotable,
        "simulated": measured.simulated,
        "measured engine": None if row is None else row.facts.sha256,
    }
    found = {
        "gate verdict": manifest.verdict,
        "promotable": manifest.promotable,
        "simulated": manifest.simulated,
        "measured engine": manifest.engine_sha256,
    }
    return _differing(found, known)


def _differing(found: dict[str, Any], known: dict[str, Any]) -> list[str]:
    return [name for name, value in found.items() if known.get(name) != value]


def _artifact(mlflow: MlflowClient, manifest: Manifest, path: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return Path(
                mlflow.download_artifacts(manifest.mlflow_run_id, path, scratch)
            ).read_bytes()
        except (MlflowException, OSError) as error:
            raise PromotionError(
                f"{path} of version {manifest.version}'s night is not in MLflow",
                where=f"run {manifest.mlflow_run_id}",
                remedy="promote a version that a nightly registered: tickline nightly",
            ) from error
