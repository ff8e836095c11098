import re
from pathlib import Path

import pytest

from infra.servers import ServerError
from infra.triton import install as installer
from infra.triton.install import REQUIREMENTS, install, installed
from model_code.settings import Settings

LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)", path.read_text(), re.MULTILINE))


def test_the_engines_libraries_are_those_of_the_project() -> None:
    server, project = pins(REQUIREMENTS), pins(LOCK)
    shared = {"onnxruntime", "openvino", "flatbuffers", "packaging", "protobuf"}
    assert shared < set(server)
    assert {name: server[name] for name in shared} == {name: project[name] for name in shared}
    assert server["numpy"].startswith("1."), "numpy 2 corrupts the Python backend's tensors"


def test_a_second_install_does_nothing(triton_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(triton=triton_home)
    first = install(settings)
    assert installed(settings)
    assert first.binary.is_file()
    monkeypatch.setattr(installer, "_run", None)  # calling it would fail
    assert install(settings) == first


def test_the_backends_are_copies_of_this_code(triton_home: Path) -> None:
    found = install(Settings(triton=triton_home)).backends
    for name in ("onnxruntime", "openvino"):
        assert (found / name / "model.py").read_bytes() == installer.BACKEND.read_bytes()
    assert {path.name for path in found.iterdir()} == {"onnxruntime", "openvino", "python"}
    assert not any(path.is_symlink() for path in found.rglob("*"))


def test_a_missing_package_index_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    settings = Settings(triton=tmp_path / "triton")
    with pytest.raises(ServerError, match="cannot install the Triton server's packages") as caught:
        install(settings)
    assert "nvidia-pytriton" in str(caught.value)
    assert "TICKLINE_TRITON" in caught.value.remedy
    assert not installed(settings)
    assert not [path for path in (tmp_path / "triton").rglob("*") if path.name != "lock"][1:]


def test_an_unsupported_interpreter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "INTERPRETERS", ("9.9",))
    with pytest.raises(ServerError, match=r"needs Python 9\.9"):
        install(Settings(triton=tmp_path))
