import errno
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from model_code.artifacts import hash_bytes, hash_path
from model_code.engines.sidecar import EngineSidecar, TensorSpec
from model_code.errors import EngineError, IntegrityError, StorageError
from model_code.repository.manifest import Manifest
from model_code.repository.staging import stage, staged_versions
from model_code.repository.triton_config import model_config
from model_code.settings import ServingSpec

FILES = {"model.onnx", "engine.json", "manifest.json", "config.pbtxt"}


def engine(folder: Path, data: bytes = b"a graph", name: str = "onnxruntime-fp32") -> EngineSidecar:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    sidecar = EngineSidecar(
        engine=name,
        library="onnxruntime",
        library_version="1",
        precision="fp32",
        device="a processor",
        file="model.onnx",
        sha256=hash_bytes(data),
        onnx_sha256=hash_bytes(data),
        inputs=(TensorSpec(name="input__0", dtype="FP32", shape=(64, 16)),),
        outputs=(TensorSpec(name="output__0", dtype="FP32", shape=(2,)),),
        max_batch=64,
        threads=2,
        system="Linux x86_64",
        flops=1000,
        build_seconds=1.0,
        parity_error=0.0,
    )
    sidecar.save(folder)
    return sidecar


def manifest(sidecar: EngineSidecar, version: int, **changes) -> Manifest:
    facts: dict[str, Any] = {
        "version": version,
        "data_sha256": "d" * 64,
        "code_commit": "c" * 40,
        "verdict": "pass",
        "promotable": True,
        "simulated": False,
        "mlflow_run_id": "m",
        "flow_run_id": "f",
        "threshold": 0.25,
    }
    return Manifest.of(sidecar, **(facts | changes))


def put(root: Path, version: int, folder: Path, data: bytes = b"a graph", **how) -> Path:
    sidecar = engine(folder, data, **how)
    return stage(root, version, folder, sidecar, manifest(sidecar, version))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_version_appears_complete(tmp_path):
    root = tmp_path / "staging"
    target = put(root, 3, tmp_path / "engine")
    assert target == root / "financial_predictor" / "3"
    assert names(target) == FILES
    assert names(target.parent) == {"3", "config.pbtxt"}
    found = Manifest.model_validate_json((target / "manifest.json").read_bytes())
    assert found.engine_sha256 == hash_path(target / "model.onnx")
    assert found.config_sha256 == hash_path(target / "config.pbtxt")
    assert found.config_sha256 == hash_path(target.parent / "config.pbtxt")
    assert EngineSidecar.load(target).sha256 == found.engine_sha256
    assert staged_versions(root) == [3]


def test_serving_settings_are_staged_and_hashed(tmp_path):
    serving = ServingSpec(instances=2, queue_delay_us=0)
    sidecar = engine(tmp_path / "engine", b"a graph")
    root, known = tmp_path / "staging", manifest(sidecar, 3, serving=serving)
    target = stage(root, 3, tmp_path / "engine", sidecar, known, serving=serving)
    config = (target / "config.pbtxt").read_text()
    assert config == model_config(sidecar, serving) != model_config(sidecar)
    assert known.config_sha256 == hash_path(target / "config.pbtxt")
    with pytest.raises(IntegrityError, match=r"do not match: config\.pbtxt"):
        stage(root, 4, tmp_path / "engine", sidecar, manifest(sidecar, 4), serving=serving)


def test_staging_the_same_bytes_again_changes_nothing(tmp_path):
    root = tmp_path / "staging"
    first = put(root, 1, tmp_path / "engine")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert put(root, 1, tmp_path / "engine") == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_staged_version_is_never_overwritten(tmp_path):
    target = put(tmp_path, 1, tmp_path / "engine")
    kept = hash_path(target)
    with pytest.raises(IntegrityError, match=r"already staged with other bytes: .*model.onnx"):
        put(tmp_path, 1, tmp_path / "other", b"another graph")
    assert hash_path(target) == kept
    assert names(target.parent) == {"1", "config.pbtxt"}


def test_a_tampered_staged_version_is_detected(tmp_path):
    target = put(tmp_path, 1, tmp_path / "engine")
    (target / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        put(tmp_path, 1, tmp_path / "engine")


def test_the_upper_configuration_is_that_of_the_highest_version(tmp_path):
    put(tmp_path, 2, tmp_path / "new", name="openvino-fp32")
    old = put(tmp_path, 1, tmp_path / "old")
    put(tmp_path, 1, tmp_path / "old")
    assert staged_versions(tmp_path) == [1, 2]
    upper = (old.parent / "config.pbtxt").read_bytes()
    assert upper == (old.parent / "2" / "config.pbtxt").read_bytes()
    assert upper != (old / "config.pbtxt").read_bytes()


def test_a_configuration_lost_between_two_renames_is_repaired(tmp_path):
    target = put(tmp_path, 1, tmp_path / "engine")
    (target.parent / "config.pbtxt").unlink()
    put(tmp_path, 1, tmp_path / "engine")
    assert hash_path(target.parent / "config.pbtxt") == hash_path(target / "config.pbtxt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"engine_sha256": "0" * 64}, "engine"),
        ({"onnx_sha256": "0" * 64}, "ONNX graph"),
        ({"config_sha256": "0" * 64}, "config.pbtxt"),
    ],
)
def test_a_manifest_of_something_else_is_refused(tmp_path, change, message):
    sidecar = engine(tmp_path / "engine")
    wrong = manifest(sidecar, 1).model_copy(update=change)
    with pytest.raises(IntegrityError, match=message):
        stage(tmp_path, 1, tmp_path / "engine", sidecar, wrong)
    assert staged_versions(tmp_path) == []


def test_a_version_below_one_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="1 or more"):
        put(tmp_path, 0, tmp_path / "engine")


def test_a_tampered_engine_is_not_staged(tmp_path):
    sidecar = engine(tmp_path / "engine")
    (tmp_path / "engine" / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(IntegrityError, match="not the one that was built"):
        stage(tmp_path, 1, tmp_path / "engine", sidecar, manifest(sidecar, 1))
    assert not (tmp_path / "financial_predictor").exists()


def test_an_engine_triton_cannot_serve_is_not_staged(tmp_path):
    sidecar = engine(tmp_path / "engine", name="torch-fp32")
    served = sidecar.model_copy(update={"engine": "onnxruntime-fp32"})
    with pytest.raises(EngineError, match="cannot be served"):
        stage(tmp_path, 1, tmp_path / "engine", sidecar, manifest(served, 1))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    put(tmp_path, 1, tmp_path / "engine")
    home = tmp_path / "financial_predictor"
    before = hash_path(home)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match="No space left on device"):
        put(tmp_path, 2, tmp_path / "other", b"another graph")
    assert hash_path(home) == before
    assert names(home) == {"1", "config.pbtxt"}


def test_a_disk_that_is_really_full_leaves_nothing_behind(tmp_path, small_disk):
    root = small_disk / "staging"
    put(root, 1, tmp_path / "engine", os.urandom(200_000))
    home = root / "financial_predictor"
    before = hash_path(home)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    other = os.urandom(600_000)
    with pytest.raises(StorageError, match="No space left on device"):
        put(root, 2, tmp_path / "other", other)
    assert hash_path(home) == before
    assert names(home) == {"1", "config.pbtxt"}
    assert staged_versions(root) == [1]
    ballast.unlink()
    assert hash_path(put(root, 2, tmp_path / "other", other) / "model.onnx") == hash_bytes(other)


def test_all_bytes_are_on_disk_before_the_version_appears(tmp_path, monkeypatch):
    home, real, synced = tmp_path / "staging" / "financial_predictor", os.fsync, set()

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent.name.startswith(".1."):
            assert not (home / "1").exists()
            synced.add(path.name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    sidecar = engine(tmp_path / "engine")
    stage(tmp_path / "staging", 1, tmp_path / "engine", sidecar, manifest(sidecar, 1))
    assert synced == FILES


def stage_with_little_room(root: str, folder: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sidecar = EngineSidecar.load(Path(folder))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        stage(Path(root), 1, Path(folder), sidecar, manifest(sidecar, 1))
    except StorageError:
        os._exit(7)
    os._exit(0)


def test_a_write_the_system_cuts_short_leaves_nothing_behind(tmp_path):
    engine(tmp_path / "engine", os.urandom(300_000))
    root = tmp_path / "staging"
    process = multiprocessing.get_context("spawn").Process(
        target=stage_with_little_room, args=(str(root), str(tmp_path / "engine"))
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    assert names(root / "financial_predictor") == set()


def test_an_unwritable_repository_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        put(tmp_path / "file", 1, tmp_path / "engine")


def test_unfinished_and_foreign_folders_are_not_versions(tmp_path):
    target = put(tmp_path, 1, tmp_path / "engine")
    (target.parent / "7").mkdir()
    (target.parent / ".8.tmp").mkdir()
    (target.parent / "notes").mkdir()
    assert staged_versions(tmp_path) == [1]
    assert staged_versions(tmp_path / "nowhere") == []


def test_the_staged_configuration_is_the_engines(tmp_path):
    target = put(tmp_path, 1, tmp_path / "engine")
    assert (target / "config.pbtxt").read_text() == model_config(EngineSidecar.load(target))
