"""Make the Triton ensemble of a staged version's blend, checked in the real server."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flows.runs.replay_model import find_version
from model_code.artifacts import atomic_folder
from model_code.errors import ConfigError
from model_code.settings import MODEL_NAME, Settings

if TYPE_CHECKING:
    from infra.triton.ensemble import Comparison

EXAMPLES = 64  # windows that each exported graph is compared on


def make_ensemble(
    settings: Settings, out: Path, version: int | None, run: str | None
) -> "tuple[int, Comparison]":
    """Write a model repository with the ensemble; return its version and how it compares.

    The folder appears once the ensemble has given the logits of the single graph, on the windows
    recorded with the version, and those of the version's golden requests.

    Args:
        settings: name the repositories, the registry and the server's installation.
        out: the repository's folder, which must not exist.
        version: None: the serving one, else the newest staged.
        run: the version that this nightly staged instead, by name or id.

    Raises:
        ConfigError: the folder exists, or there is no such version or no weights of it.
        EngineError: its model is no blend.
        ExportError: the ensemble answers otherwise than the single graph.
        ServerError: the Triton server cannot be installed or does not start.
        ServingError: a model does not load or answer.
    """
    from infra.triton.ensemble import compare_with_single
    from model_code.engines.sidecar import EngineSidecar
    from model_code.export.parts import parts
    from model_code.models import network
    from model_code.repository.ensemble import write_ensemble, write_single
    from model_code.repository.requests import GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay
    from tasks.runs.stored import fetch_weights

    if out.exists():
        raise ConfigError("the folder exists", where=str(out), remedy="name one that does not")
    folder, manifest = find_version(settings, version, run)
    x_RTF = Replay.load(folder / REPLAY_FILE).x_RTF
    with TemporaryDirectory() as scratch:
        model = network.load(fetch_weights(settings, manifest.version, Path(scratch)))
    split = parts(model)
    example_BTF = x_RTF[:EXAMPLES]
    # the golden logits of an engine at reduced precision are not the graph's
    exact = EngineSidecar.load(folder).precision == "fp32"
    known = GoldenSet.load(folder / GOLDEN_FILE) if exact else None
    with atomic_folder(out) as repository:
        write_ensemble(repository, manifest.version, split, example_BTF)
        write_single(repository, manifest.version, model, example_BTF)
        found = compare_with_single(settings, repository, split, x_RTF, known=known)
        shutil.rmtree(repository / MODEL_NAME)
    return manifest.version, found
