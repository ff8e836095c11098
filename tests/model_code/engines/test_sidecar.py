import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_code.artifacts import hash_bytes
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar, TensorSpec
from model_code.errors import IntegrityError

BYTES = bytes(range(256))


def written(folder: Path, file: str = "model.onnx") -> EngineSidecar:
    sidecar = EngineSidecar(
        engine="onnxruntime-fp32",
        library="onnxruntime",
        library_version="1.2.3",
        precision="fp32",
        device="a processor",
        file=file,
        sha256=hash_bytes(BYTES),
        onnx_sha256=hash_bytes(BYTES),
        inputs=(TensorSpec(name="input__0", dtype="FP32", shape=(64, 16)),),
        outputs=(TensorSpec(name="output__0", dtype="FP32", shape=(2,)),),
        max_batch=64,
        threads=2,
        system="Linux x86_64",
        flops=1000,
        build_seconds=0.5,
        parity_error=1e-7,
    )
    (folder / file).write_bytes(BYTES)
    sidecar.save(folder)
    return sidecar


def test_it_reads_back_what_it_wrote(tmp_path):
    sidecar = written(tmp_path)
    assert EngineSidecar.load(tmp_path) == sidecar


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(position=st.integers(0, len(BYTES) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(tmp_path, position, bit):
    written(tmp_path)
    tampered = bytearray(BYTES)
    tampered[position] ^= 1 << bit
    (tmp_path / "model.onnx").write_bytes(tampered)
    with pytest.raises(IntegrityError, match="not the one that was built"):
        EngineSidecar.load(tmp_path)


def test_a_truncated_or_missing_engine_is_refused(tmp_path):
    written(tmp_path)
    (tmp_path / "model.onnx").write_bytes(BYTES[:-1])
    with pytest.raises(IntegrityError, match="expected sha256"):
        EngineSidecar.load(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(IntegrityError, match="found no file"):
        EngineSidecar.load(tmp_path)


def test_a_missing_sidecar_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="no engine sidecar"):
        EngineSidecar.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"threads": "two"}, {"parity_error": float("nan")}, {"sha256": None}],
)
def test_a_malformed_sidecar_is_refused(tmp_path, change):
    written(tmp_path)
    path = tmp_path / SIDECAR_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IntegrityError, match="malformed"):
        EngineSidecar.load(tmp_path)


def test_the_engine_must_be_beside_its_sidecar(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    sidecar = written(folder)
    (tmp_path / "model.onnx").write_bytes(BYTES)
    sidecar.model_copy(update={"file": "../model.onnx"}).save(folder)
    with pytest.raises(IntegrityError):
        EngineSidecar.load(folder)
