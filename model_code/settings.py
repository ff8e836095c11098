"""One definition of each constant, specification and machine setting.

Specifications (`*Spec`) are frozen, strict and hashed into cache keys: they say *what* to compute.
`Settings` says *where*: folders and addresses, from the environment (prefix `TICKLINE_`).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# The model's contract with everything that serves it.
MODEL_NAME = "financial_predictor"
INPUT_NAME = "input__0"
OUTPUT_NAME = "output__0"
SEQUENCE_LENGTH = 64
FEATURE_COUNT = 16
CLASS_COUNT = 2
MAX_BATCH_SIZE = 64
PREFERRED_BATCH_SIZES = (8, 16, 32)
MAX_QUEUE_DELAY_US = 100
ONNX_OPSET = 18
TENSORRT_WORKSPACE_BYTES = 4 << 30

ENGINE_NAMES = (
    "torch-fp32",
    "torch-amp",
    "onnxruntime-fp32",
    "openvino-fp32",
    "openvino-bf16",
    "tensorrt-fp16",
)
REFERENCE_ENGINE = "torch-fp32"

# lists come in from JSON and forms, where strict mode would refuse them
Names = Annotated[tuple[str, ...], Field(strict=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(gt=0)]


class Spec(BaseModel):
    """Base of every specification: frozen, strict, no unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class ValidationSpec(Spec):
    """What a usable day looks like (thresholds of `tasks/validate.py`)."""

    KIND: Literal["great-expectations"] = "great-expectations"
    max_fault_fraction: Fraction = 0.01
    minimum_rows: PositiveInt = 1000
    maximum_gap_s: Positive = 60.0
    maximum_spread_bps: Positive = 100.0
    maximum_jump_sigma: Positive = 50.0
    trade_band_bps: Positive = 200.0


class FeatureSpec(Spec):
    """Feature and label parameters (formulas: `model_code/features`)."""

    KIND: Literal["level1-16"] = "level1-16"
    horizon_ms: Positive = 100.0
    cost_bps: Annotated[float, Field(ge=0.0)] = 0.0
    reset_gap_s: Positive = 10.0


class SplitSpec(Spec):
    """Time-ordered split: the newest day is the test day, the end of the rest is validation."""

    KIND: Literal["newest-day"] = "newest-day"
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    embargo_ms: Annotated[float, Field(ge=0.0)] = 1000.0
    train_windows: PositiveInt = 16384
    validation_windows: PositiveInt = 2048
    test_windows: PositiveInt = 4096


class NetworkSpec(Spec):
    """The Conv1d + Transformer encoder's sizes."""

    KIND: Literal["conv-transformer"] = "conv-transformer"
    d_model: PositiveInt = 64
    heads: PositiveInt = 8
    layers: PositiveInt = 4
    feed_forward: PositiveInt = 2048
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class TrainingSpec(Spec):
    """AdamW, cosine annealing with warm-up, mixed precision.

    The defaults fit four minutes on two cores without BF16; `docs/training.md` has a GPU's.
    """

    KIND: Literal["adamw-cosine"] = "adamw-cosine"
    epochs: PositiveInt = 3
    windows_per_epoch: PositiveInt = 4096  # every training window is seen once before any twice
    batch_size: PositiveInt = 32
    learning_rate: Positive = 5e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    clip_norm: Positive = 1.0
    patience: PositiveInt = 3
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 7


class BenchmarkSpec(Spec):
    """How engines are measured against each other."""

    KIND: Literal["interleaved"] = "interleaved"
    engines: Names = ENGINE_NAMES
    warmup: PositiveInt = 20
    requests: PositiveInt = 400
    rounds: PositiveInt = 8
    throughput_batch: PositiveInt = MAX_BATCH_SIZE
    throughput_batches: PositiveInt = 8

    @field_validator("engines")
    @classmethod
    def _known(cls, engines: tuple[str, ...]) -> tuple[str, ...]:
        servable = {name for name in ENGINE_NAMES if not name.startswith("torch-")}
        if not set(engines) <= set(ENGINE_NAMES) or not set(engines) & servable:
            raise ValueError(f"only known engines, and at least one of {', '.join(servable)}")
        return engines

    @property
    def measured(self) -> tuple[str, ...]:
        """The engines asked for, and the reference they are compared with, in table order."""
        return tuple(name for name in ENGINE_NAMES if name in {REFERENCE_ENGINE, *self.engines})


class NightlySpec(Spec):
    """Everything the nightly flow computes from; its JSON is logged with every run."""

    KIND: Literal["nightly"] = "nightly"
    market: str | None = None  # None: TICKLINE_MARKET, and without that the simulated market
    instruments: Names = ()  # empty: all that the store holds
    train_days: PositiveInt = 20
    test_date: str | None = None  # None: the newest day of the store
    validation: ValidationSpec = ValidationSpec()
    features: FeatureSpec = FeatureSpec()
    split: SplitSpec = SplitSpec()
    network: NetworkSpec = NetworkSpec()
    training: TrainingSpec = TrainingSpec()
    benchmark: BenchmarkSpec = BenchmarkSpec()
    goals: str | None = None  # path of a goals YAML; None: the one shipped with the gate


class Settings(BaseSettings):
    """Machine settings, from `TICKLINE_*` environment variables or a `.env` file.

    Attributes:
        home: folder of everything Tickline writes (artefacts, databases, logs).
        market: URI of the market store when no `--data` is given; None means simulated.
        mlflow_tracking_uri: None means SQLite under `home`.
        mlflow_experiment: experiment of the nightly runs.
        mlflow_ui_url: where people open MLflow's pages (`tickline ui`), for links.
        prefect_ui_url: the same for Prefect's pages.
        prefect_api_url: a running Prefect server; None starts an embedded one under `home`.
        staging: folder of the staging model repository; None means under `home`.
    """

    model_config = SettingsConfigDict(
        env_prefix="TICKLINE_", env_file=".env", extra="ignore", frozen=True
    )

    home: Path = Path.home() / ".tickline"
    market: str | None = None
    mlflow_tracking_uri: str | None = None
    mlflow_experiment: str = "nightly"
    mlflow_ui_url: str = "http://127.0.0.1:5000"
    prefect_ui_url: str = "http://127.0.0.1:4200"
    prefect_api_url: str | None = None
    staging: Path | None = None

    @property
    def artifacts(self) -> Path:
        """Root of the content-addressed artefact store."""
        return self.home / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Root of training checkpoints, by the key of the training's inputs."""
        return self.home / "checkpoints"

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def staging_repository(self) -> Path:
        """Root of the staging Triton model repository."""
        return self.staging or self.home / "staging"

    def resolved(self, **changes: Any) -> "Settings":
        """A copy with the given fields replaced and `home` made absolute."""
        values = self.model_dump() | changes
        values["home"] = Path(values["home"]).expanduser().resolve()
        return Settings(**values)
