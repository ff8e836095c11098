"""NVIDIA's container for machines with a GPU: the pinned image, and a check that an engine fits it.

A TensorRT plan runs only in the version that built it. A mismatch is therefore detected before the
plan is staged for such a server, not when it fails to load.
Source: docs.nvidia.com/deeplearning/triton-inference-server, introduction/compatibility (the 25.10
base: TensorRT 10.13.3.9, CUDA 13.0.2.006) and release notes 25.10.
"""

from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineUnavailableError

IMAGE = "nvcr.io/nvidia/tritonserver:25.10-py3"  # infra/compose.yaml runs it
TENSORRT = "10.13.3.9"


def require_compatible(sidecar: EngineSidecar) -> None:
    """Raise if the image cannot run the engine; engines without a plan run in any image.

    Raises:
        EngineUnavailableError: the plan was built by another TensorRT.
    """
    found = sidecar.library_version.partition(".post")[0]
    if sidecar.plan is not None and found != TENSORRT:
        raise EngineUnavailableError(
            f"the plan was built by {sidecar.library} {found}, {IMAGE} has TensorRT {TENSORRT}",
            where=sidecar.file,
            remedy=f"build it with tensorrt=={TENSORRT}, or pin the image of its version "
            "(infra/triton/image.py and infra/compose.yaml)",
        )
