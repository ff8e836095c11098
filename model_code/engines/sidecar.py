"""`engine.json`: what an engine is, what it was built from, and where it may run."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
)

from model_code.artifacts import atomic_file, hash_path
from model_code.errors import IntegrityError

SIDECAR_FILE = "engine.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TensorSpec(_Frozen):
    """One input or output.

    Attributes:
        name: as in the served model.
        dtype: as Triton names it.
        shape: of one sample, without the batch dimension.
    """

    name: str
    dtype: Literal["FP32", "FP16"]
    shape: tuple[PositiveInt, ...]


class PlanFacts(_Frozen):
    """The builder and the GPU that a TensorRT plan is tied to.

    Attributes:
        compute_capability: SM the plan was compiled for, as "9.0".
        gpu: device name.
        driver: NVIDIA driver version.
        cuda: CUDA version torch runs with.
        profile: batch sizes (min, opt, max) of the one optimisation profile.
        workspace_bytes: limit given to the builder.
        flags: builder flags set.
        layers: number of layers of the parsed network by output type, as {"HALF": 70}.
        built_layers: the same of the built engine; empty in a sidecar of an earlier version.
        timing_cache_sha256: of the timing cache after the build.
        trtexec: the command that builds the same plan from `typed.onnx` and `timing.cache`.
    """

    compute_capability: str
    gpu: str
    driver: str
    cuda: str
    profile: tuple[PositiveInt, PositiveInt, PositiveInt]
    workspace_bytes: PositiveInt
    flags: tuple[str, ...]
    layers: dict[str, PositiveInt]
    built_layers: dict[str, PositiveInt] = {}
    timing_cache_sha256: str
    trtexec: str


class EngineSidecar(_Frozen):
    """Metadata of an engine, stored beside it as `engine.json`.

    Attributes:
        engine: one of `settings.ENGINE_NAMES`.
        library: package that runs it.
        library_version: of the package it was built with.
        precision: arithmetic of the matrix products.
        fp32_operators: ONNX operators kept in FP32 on purpose.
        device: device name it was built on.
        file: file name beside the sidecar.
        sha256: of that file.
        onnx_sha256: of the ONNX graph it came from; for engines of another form (torch, or trees as
            one node), of the sibling export, which is the one registered.
        inputs: names, types, shapes.
        outputs: names, types, shapes.
        max_batch: largest batch a caller may send.
        threads: intra-operator threads used while building.
        system: operating system and architecture.
        flops: floating-point operations of one window, matrix products only; 0 for trees alone.
        recipe: how the file was derived from the export, for engines that change the network.
        build_seconds: wall time of the build, including compilation.
        parity_error: largest |logit difference| to eager FP32 on sampled windows.
        plan: TensorRT only.
    """

    engine: str
    library: str
    library_version: str
    precision: str
    fp32_operators: tuple[str, ...] = ()
    device: str
    file: str
    sha256: str
    onnx_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: PositiveInt
    threads: PositiveInt
    system: str
    flops: Annotated[int, Field(ge=0)]
    recipe: dict[str, str | int | FiniteFloat] = {}
    build_seconds: FiniteFloat
    parity_error: FiniteFloat
    plan: PlanFacts | None = None

    def save(self, folder: Path) -> Path:
        """Write `engine.json` into the engine's folder."""
        path = folder / SIDECAR_FILE
        with atomic_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `engine.json` and verify that the engine's bytes have the recorded hash.

        Raises:
            IntegrityError: sidecar or engine missing, malformed, or bytes differ.
        """
        path = folder / SIDECAR_FILE
        remedy = "build the engine again; never load one of unknown origin"
        try:
            sidecar = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise IntegrityError("no engine sidecar", where=str(path), remedy=remedy) from None
        except ValidationError as error:
            raise IntegrityError(
                f"engine sidecar is malformed: {error.error_count()} fields are wrong or missing, "
                f"first {error.errors()[0]['loc']}",
                where=str(path),
                remedy=remedy,
            ) from error
        engine = folder / sidecar.file
        found = hash_path(engine) if engine.is_file() else "no file"
        if engine.parent != folder or found != sidecar.sha256:
            raise IntegrityError(
                f"engine {sidecar.engine} is not the one that was built: "
                f"expected sha256 {sidecar.sha256[:12]}, found {found[:12]}",
                where=str(engine),
                remedy=remedy,
            )
        return sidecar
