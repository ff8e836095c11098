"""Verify a served model with its golden requests.

Triton reports a model as ready even if its backend process is dead, and refuses to load it again.
Only recorded windows with their expected logits show that it works.
"""

import os
from pathlib import Path

import numpy as np

from model_code.artifacts import storage_error
from model_code.errors import ServingError
from model_code.repository.manifest import CONFIG_FILE
from model_code.repository.requests import GoldenSet
from model_code.repository.triton_config import parse
from model_code.serving.client import TIMEOUT_S, TritonClient
from model_code.settings import MAX_BATCH_SIZE, MODEL_NAME


def prove(
    client: TritonClient,
    golden: GoldenSet,
    model: str = MODEL_NAME,
    version: int | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Send every golden request, in batches and the first one also alone, and compare the logits.

    Raises:
        ServingError: no response, NaN, a response of another version, or logits off by more than
            the tolerance.
    """
    if len(golden.x_NTF) == 0:
        raise ServingError("the golden set is empty: it verifies nothing", where=model)
    count = len(golden.x_NTF)
    together = [slice(i, min(i + MAX_BATCH_SIZE, count)) for i in range(0, count, MAX_BATCH_SIZE)]
    for batch in together if count == 1 else [slice(0, 1), *together]:
        answer = client.ask(golden.x_NTF[batch], model=model, version=version, timeout_s=timeout_s)
        where = f"{client.url}, model {model}, version {answer.version}"
        if version is not None and answer.version != version:
            raise ServingError(f"requested version {version}, another responded", where=where)
        error = float(np.abs(answer.logits_BC - golden.logits_NC[batch]).max())
        if not error <= golden.tolerance:
            raise ServingError(
                f"a golden request was answered wrongly: logits off by {error:.3g}, "
                f"allowed {golden.tolerance:.3g}",
                where=where,
                remedy="do not serve it: tickline rollback",
            )


def reload(client: TritonClient, model: str = MODEL_NAME) -> None:
    """Unload and load a model whose backend process died. Verify it afterwards.

    Raises:
        ServingError: it does not unload or load.
    """
    client.unload(model, wait=False)
    client.load(model)


def revive(client: TritonClient, folder: Path) -> None:
    """Load one version of the served model again, and leave its neighbours alone.

    Triton loads a version of a loaded model again only if its file has a newer time.

    Args:
        client: of the server.
        folder: of the version, in the repository that the server reads.

    Raises:
        ServingError: it does not load.
        StorageError: the time of its file cannot be set.
    """
    model = folder / parse((folder / CONFIG_FILE).read_text()).default_model_filename
    try:
        os.utime(model)
    except OSError as error:
        raise storage_error(error, model) from error
    client.load()
