"""Load a version under another name from its bytes, outside the serving repository.

Triton accepts a model's files and configuration in the load request. A version loaded this way for
validation, shadow or canary is gone after a restart of the server, also from its index.
"""

from pathlib import Path

from google.protobuf import json_format

from model_code.repository.manifest import CONFIG_FILE, Manifest
from model_code.repository.triton_config import parse
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME

CANDIDATE_NAME = f"{MODEL_NAME}_candidate"


def load_under(client: TritonClient, model: str, folder: Path) -> int:
    """Load a version's folder as `model`; return the version.

    Raises:
        IntegrityError: bytes differ from the manifest; nothing was sent.
        ServingError: it does not load.
    """
    manifest = Manifest.load(folder)
    if client.ready(model):
        # loading over a model of the same configuration succeeds but keeps serving the old bytes
        client.unload(model)
    config = parse((folder / CONFIG_FILE).read_text())
    config.name = model
    engine = folder / config.default_model_filename
    client.load_bytes(
        model,
        json_format.MessageToJson(config, preserving_proto_field_name=True),
        {f"{manifest.version}/{engine.name}": engine.read_bytes()},
    )
    return manifest.version
