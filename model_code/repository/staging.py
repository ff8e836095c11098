"""The staging model repository: a version folder appears complete or not at all.

    <root>/financial_predictor/config.pbtxt
    <root>/financial_predictor/<version>/{model.onnx | model.plan, engine.json, manifest.json,
                                          config.pbtxt, golden and recorded requests}

Triton reads the upper `config.pbtxt`, which belongs to the highest version. Each version also keeps
its own copy, because promotion and rollback need the configuration it was approved with.
"""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from model_code.artifacts import atomic_file, atomic_folder, hash_bytes, hash_path
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar
from model_code.errors import IntegrityError
from model_code.repository.manifest import CONFIG_FILE, MANIFEST_FILE, Manifest
from model_code.repository.triton_config import model_config
from model_code.settings import MODEL_NAME, ServingSpec


def stage(
    root: Path,
    version: int,
    engine_folder: Path,
    sidecar: EngineSidecar,
    manifest: Manifest,
    requests: Path | None = None,
    serving: ServingSpec | None = None,
) -> Path:
    """Add a version to the staging repository by one rename.

    Staging the same bytes again changes nothing. Nothing is overwritten.

    Args:
        root: of the staging repository; created if missing.
        version: registered version, 1 or more.
        engine_folder: folder written by `Engine.build`.
        sidecar: of that engine.
        manifest: of this version.
        requests: folder of golden and recorded requests, named in the manifest's `files`.
        serving: how the server runs it; None: the design's. The manifest has the hash.

    Returns:
        The version's folder.

    Raises:
        IntegrityError: the engine, sidecar and manifest disagree, or the version exists with other
            bytes.
        EngineError: Triton cannot serve the engine.
        StorageError: the repository cannot be written; nothing is left behind.
    """
    config = model_config(sidecar, serving).encode()
    _require_agreement(version, engine_folder, sidecar, manifest, config)
    texts = {
        CONFIG_FILE: config,
        MANIFEST_FILE: manifest.text(),
    }
    copies = {name: engine_folder / name for name in (sidecar.file, SIDECAR_FILE)}
    copies |= {name: requests / name for name in manifest.files if requests}
    home = root / MODEL_NAME
    target = home / str(version)
    if target.exists():
        _require_same(target, texts, copies)
    newest = version >= max(staged_versions(root), default=0)
    # all bytes are on disk before the first rename; the version appears before the config does
    with ExitStack() as stack:
        if newest and _read(home / CONFIG_FILE) != config:
            stack.enter_context(atomic_file(home / CONFIG_FILE)).write_bytes(config)
        if not target.exists():
            folder = stack.enter_context(atomic_folder(target))
            for name, text in texts.items():
                (folder / name).write_bytes(text)
            for name, source in copies.items():
                shutil.copyfile(source, folder / name)
            for path in folder.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            # verify the copy too, so that exactly the measured bytes are staged
            manifest.verify(folder)
    return target


def staged_versions(root: Path) -> list[int]:
    """Versions in a repository, ascending, without unfinished and foreign folders."""
    home = root / MODEL_NAME
    if not home.is_dir():
        return []
    return sorted(int(path.name) for path in home.iterdir() if path.is_dir() and _is_version(path))


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdigit() and (path / MANIFEST_FILE).is_file()


def _require_agreement(
    version: int, engine_folder: Path, sidecar: EngineSidecar, manifest: Manifest, config: bytes
) -> None:
    found = EngineSidecar.load(engine_folder)
    pairs = {
        "sidecar": (found, sidecar),
        "version": (manifest.version, version),
        "engine": (manifest.engine_sha256, sidecar.sha256),
        "ONNX graph": (manifest.onnx_sha256, sidecar.onnx_sha256),
        "config.pbtxt": (manifest.config_sha256, hash_bytes(config)),
    }
    wrong = [name for name, (one, other) in pairs.items() if one != other]
    if version < 1:
        wrong.append("version (must be 1 or more)")
    if wrong:
        raise IntegrityError(
            f"the inputs of staging do not match: {', '.join(wrong)}",
            where=str(engine_folder),
            remedy="create the manifest with Manifest.of from this engine's sidecar",
        )


def _require_same(target: Path, texts: dict[str, bytes], copies: dict[str, Path]) -> None:
    wanted = {name: hash_bytes(text) for name, text in texts.items()}
    wanted |= {name: hash_path(source) for name, source in copies.items()}
    found = {path.name: hash_path(path) for path in target.iterdir()}
    if found != wanted:
        names = sorted({name for name, _ in found.items() ^ wanted.items()})
        raise IntegrityError(
            f"version {target.name} is already staged with other bytes: {', '.join(names)}",
            where=str(target),
            remedy="register a new version; a staged one is never overwritten",
        )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
