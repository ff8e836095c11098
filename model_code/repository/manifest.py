"""`manifest.json`: provenance of a version, hashes of its files, and its approval."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_code.artifacts import hash_bytes, hash_path
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import IntegrityError
from model_code.features.served import SOLO, SeenFeatures, ServedFeatures
from model_code.repository.terms import Terms
from model_code.repository.triton_config import model_config
from model_code.settings import MODEL_NAME, ServingSpec
from model_code.training.threshold import DEFAULT_THRESHOLD

MANIFEST_FILE = "manifest.json"
CONFIG_FILE = "config.pbtxt"
REMEDY = "do not serve it; promote another version, or stage this one again"


class Approval(BaseModel):
    """Approval of a version for serving.

    Attributes:
        reviewer: name from the policy; without a signature it is only a claim.
        at: UTC, ISO 8601.
        reason: given by the reviewer.
        started_by: who or what started the promotion.
        flow_run_id: the promotion's.
        policy_sha256: of the policy's bytes; empty in an approval of an earlier version.
        signed: text that the reviewer signed; empty without a signature.
        signature: by the reviewer's SSH key; empty without one.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    reviewer: str
    at: str
    reason: str
    started_by: str
    flow_run_id: str
    policy_sha256: str = ""
    signed: str = ""
    signature: str = ""


class Manifest(BaseModel):
    """Provenance of a staged version; all hashes are sha256 in hex.

    Attributes:
        model: served name.
        version: registered version, also the folder's name.
        data_sha256: of the data snapshot it was trained and tested on.
        code_commit: git commit of the code.
        onnx_sha256: of the exported graph.
        engine_sha256: of the engine's file.
        config_sha256: of `config.pbtxt`.
        files: hashes of the other files (golden requests, recorded requests) by name.
        verdict: the gate's verdict.
        promotable: may be promoted by default.
        simulated: trained or measured on simulated data.
        threshold: probability from which an answer counts as class 1; 0.5 in a manifest of an
            earlier version, which does not have it.
        features: that its windows are computed with; None in a manifest of an earlier version,
            which sees the set `solo`.
        terms: what its figures refer to; None in a manifest of an earlier version.
        mlflow_run_id: parent tracking run.
        flow_run_id: orchestrator's run.
        started_by: who or what started that run, separated by commas; None in a manifest of an
            earlier version.
        approval: None until a reviewer approves; set only in the serving repository.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: str = MODEL_NAME
    version: int
    data_sha256: str
    code_commit: str
    onnx_sha256: str
    engine_sha256: str
    config_sha256: str
    files: dict[str, str] = {}
    verdict: str
    promotable: bool
    simulated: bool
    mlflow_run_id: str
    flow_run_id: str
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = DEFAULT_THRESHOLD
    features: ServedFeatures | None = None
    terms: Terms | None = None
    started_by: str | None = None
    approval: Approval | None = None

    @classmethod
    def of(
        cls,
        sidecar: EngineSidecar,
        *,
        version: int,
        data_sha256: str,
        code_commit: str,
        verdict: str,
        promotable: bool,
        simulated: bool,
        mlflow_run_id: str,
        flow_run_id: str,
        threshold: float,
        features: ServedFeatures | None = None,
        terms: Terms | None = None,
        started_by: str | None = None,
        files: dict[str, str] | None = None,
        serving: ServingSpec | None = None,
    ) -> Self:
        """The manifest of an engine, with the hashes of its sidecar and configuration."""
        return cls(
            version=version,
            data_sha256=data_sha256,
            code_commit=code_commit,
            onnx_sha256=sidecar.onnx_sha256,
            engine_sha256=sidecar.sha256,
            config_sha256=hash_bytes(model_config(sidecar, serving).encode()),
            files=files or {},
            verdict=verdict,
            promotable=promotable,
            simulated=simulated,
            mlflow_run_id=mlflow_run_id,
            flow_run_id=flow_run_id,
            threshold=threshold,
            features=features,
            terms=terms,
            started_by=started_by,
        )

    @property
    def identity(self) -> str:
        """sha256 over everything except the approval: identifies what is approved."""
        return hash_bytes(self.model_dump_json(exclude={"approval", *self._absent()}).encode())

    def text(self) -> bytes:
        """The file's bytes."""
        return (self.model_dump_json(indent=2, exclude=self._absent()) + "\n").encode()

    def _absent(self) -> set[str]:
        """Fields that a manifest of an earlier version lacks: its approval is of bytes without."""
        absent = {"threshold"} - self.model_fields_set
        unset = {
            name for name in ("features", "terms", "started_by") if getattr(self, name) is None
        }
        return absent | unset

    @property
    def seen(self) -> SeenFeatures:
        """The feature set and leaders of its windows."""
        return SOLO if self.features is None else self.features.seen

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a version's manifest and verify every file of the version against it.

        Raises:
            IntegrityError: something is missing, malformed or has other bytes.
        """
        path = folder / MANIFEST_FILE
        try:
            manifest = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise IntegrityError("no manifest", where=str(path), remedy=REMEDY) from None
        except ValidationError as error:
            raise IntegrityError(
                f"the manifest is malformed: {error.errors()[0]['loc']}",
                where=str(path),
                remedy=REMEDY,
            ) from error
        manifest.verify(folder)
        if folder.name != str(manifest.version):
            raise IntegrityError(
                f"folder {folder.name} contains version {manifest.version}",
                where=str(folder),
                remedy=REMEDY,
            )
        return manifest

    def verify(self, folder: Path) -> EngineSidecar:
        """Compare every file of a version's folder with this manifest.

        Raises:
            IntegrityError: something is missing or has other bytes.
        """
        sidecar = EngineSidecar.load(folder)  # verifies the engine's bytes against the sidecar
        wanted = self.files | {CONFIG_FILE: self.config_sha256}
        found = {
            name: hash_path(folder / name) if (folder / name).is_file() else "no file"
            for name in wanted
        }
        pairs = {name: (found[name], sha256) for name, sha256 in wanted.items()} | {
            sidecar.file: (sidecar.sha256, self.engine_sha256),
            "ONNX graph": (sidecar.onnx_sha256, self.onnx_sha256),
        }
        for name, (is_, should) in pairs.items():
            if is_ != should:
                raise IntegrityError(
                    f"version {self.version}: {name} is not the one in the manifest: "
                    f"expected sha256 {should[:12]}, found {is_[:12]}",
                    where=str(folder),
                    remedy=REMEDY,
                )
        return sidecar
