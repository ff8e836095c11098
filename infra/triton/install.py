"""The server's own environment, created once per pin file: real binary, libraries, backends.

`nvidia-pytriton` contains NVIDIA's `tritonserver` binary with its Python backend. That backend
needs numpy below 2, so it is installed outside the project's environment, in a cache shared by all
homes.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from infra.servers import ServerError
from model_code.artifacts import atomic_folder, hash_bytes
from model_code.settings import Settings

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
SERVER = "Triton 2.51.0, Python backend"  # what nvidia-pytriton 0.7.0 bundles
BACKEND = HERE / "backend_model.py"
BACKENDS = ("onnxruntime", "openvino")  # TensorRT has no Python backend here
INTERPRETERS = ("3.11", "3.12")  # numpy below 2 has no wheels for newer ones
SITECUSTOMIZE = "import sys\n\nsys.dont_write_bytecode = True\n"  # otherwise models load twice


@dataclass(frozen=True)
class Installation:
    """An installed server.

    Attributes:
        venv: its virtual environment.
        backends: its backend directory.
        library_path: LD_LIBRARY_PATH it needs.
    """

    venv: Path
    backends: Path
    library_path: str

    @property
    def binary(self) -> Path:
        """The tritonserver executable."""
        return _bundle(self.venv) / "bin" / "tritonserver"


def installed(settings: Settings) -> bool:
    """Whether the server is installed for this home."""
    try:
        version, _ = _interpreter()
    except ServerError:
        return False
    return (_root(settings, version) / "venv").is_dir()


def install(settings: Settings, say: Callable[[str], None] | None = None) -> Installation:
    """Create the server's environment unless it exists; safe for concurrent calls.

    Args:
        settings: its location (`triton_home`).
        say: called before a long step.

    Raises:
        ServerError: no suitable interpreter, or the packages cannot be downloaded.
        StorageError: the folder cannot be written.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ServerError(
            f"no Triton server for {platform.system()} {platform.machine()}",
            remedy="run it in NVIDIA's container (docs/serving.md) and set TICKLINE_TRITON_URL",
        )
    version, interpreter = _interpreter()
    root = _root(settings, version)
    venv = root / "venv"
    backends = root / f"backends-{hash_bytes(BACKEND.read_bytes())[:12]}"
    library_path = _library_path(interpreter, venv, version)
    if not (venv.is_dir() and backends.is_dir()):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "lock"):
            if not venv.is_dir():
                if say:
                    say(f"installing the Triton server under {root} (once, about 510 MB)")
                _make_venv(interpreter, venv, version)
            if not backends.is_dir():
                _make_backends(backends, venv, version)
    return Installation(venv, backends, library_path)


def _root(settings: Settings, version: str) -> Path:
    return settings.triton_home / f"py{version}-{hash_bytes(REQUIREMENTS.read_bytes())[:12]}"


def _interpreter() -> tuple[str, str]:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in INTERPRETERS:
        return own, sys.executable
    for version in INTERPRETERS:
        found = shutil.which(f"python{version}")
        if found:
            return version, found
    raise ServerError(
        f"the Triton server's Python backend needs Python {' or '.join(INTERPRETERS)}, "
        f"this is {own}",
        remedy=f"install python{INTERPRETERS[-1]} as well",
    )


def _make_venv(interpreter: str, target: Path, version: str) -> None:
    with atomic_folder(target) as folder:
        _run([interpreter, "-m", "venv", str(folder)], "cannot create a virtual environment")
        pip = [str(folder / "bin" / "python"), "-m", "pip"]
        pip += ["--disable-pip-version-check", "--retries=5", "--timeout=60"]
        _run(
            [*pip, "install", "-q", "--no-deps", "--only-binary=:all:", "-r", str(REQUIREMENTS)],
            "cannot install the Triton server's packages",
        )
        (_site(folder, version) / "sitecustomize.py").write_text(SITECUSTOMIZE)


def _make_backends(target: Path, venv: Path, version: str) -> None:
    # copies, because the server resolves links and searches beside the originals
    bundle = _bundle(venv)
    with atomic_folder(target) as folder:
        python = folder / "python"
        shutil.copytree(bundle / "backends" / "python", python)
        stub = bundle / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, python / stub.name)
        for name in BACKENDS:
            (folder / name).mkdir()
            shutil.copyfile(BACKEND, folder / name / "model.py")


def _run(command: list[str], what: str) -> None:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise ServerError(
            f"{what}:\n{tail}",
            where=" ".join(command[:4]),
            remedy="connect to a package index once (PIP_INDEX_URL, PIP_FIND_LINKS), or set "
            "TICKLINE_TRITON to a folder with an installation",
        )


def _library_path(interpreter: str, venv: Path, version: str) -> str:
    # the backend's stub is linked with libpython, which a virtual environment does not contain
    ask = "import sys, sysconfig as s; print(s.get_config_var('LIBDIR'), sys.base_prefix + '/lib')"
    done = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True, check=False)
    places = [*done.stdout.split(), "/usr/lib/x86_64-linux-gnu"]
    name = f"libpython{version}.so.1.0"
    home = next((place for place in places if (Path(place) / name).exists()), None)
    if home is None:
        raise ServerError(
            f"no {name}, which the Triton server's Python backend is linked with",
            where=", ".join(places),
            remedy=f"install it (Debian: apt-get install libpython{version}), or use a Python "
            "built with --enable-shared",
        )
    return f"{home}:{_site(venv, version) / 'nvidia_pytriton.libs'}"


def _site(venv: Path, version: str) -> Path:
    return venv / "lib" / f"python{version}" / "site-packages"


def _bundle(venv: Path) -> Path:
    return next((venv / "lib").glob("python3.*")) / "site-packages" / "pytriton" / "tritonserver"
