"""One definition of each constant, specification and machine setting.

Specifications (`*Spec`) are frozen, strict and hashed into cache keys: they say *what* to compute.
`Settings` says *where*: folders and addresses, from the environment (prefix `TICKLINE_`).
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

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
    "torch-compile",
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "onnxruntime-pruned",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
    "openvino-pruned",
    "openvino-pruned-bf16",
    "tensorrt-fp32",
    "tensorrt-fp16",
    "tensorrt-bf16",
    "tensorrt-sparse",
)
REFERENCE_ENGINE = "torch-fp32"
# torch-compile compiles for minutes and cannot be staged: `tickline bench` has it, a night has not
NIGHTLY_ENGINES = tuple(name for name in ENGINE_NAMES if name != "torch-compile")
CHAMPION_ROW = "champion"  # the serving model, measured beside the engines

# lists come in from JSON and forms, where strict mode would refuse them
Names = Annotated[tuple[str, ...], Field(strict=False)]
Batches = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(gt=0)]


def _names(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


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
    engines: Names = NIGHTLY_ENGINES
    pin: str | None = None  # stage this engine or none; None: the fastest that passes the gate
    warmup: PositiveInt = 50
    requests: PositiveInt = 1000  # single ones, an engine
    rounds: PositiveInt = 50
    batches: Batches = (1, 8, 16, 32, MAX_BATCH_SIZE)
    throughput_rounds: PositiveInt = 5
    open_loop_hz: Positive = 100.0
    open_loop_requests: PositiveInt = 300
    served: bool = True  # measure through a real Triton server too, where one is installed
    concurrency: Batches = (1, 8, 32)  # of the closed loop through it
    concurrent_requests: PositiveInt = 1000

    @field_validator("engines")
    @classmethod
    def _known(cls, engines: tuple[str, ...]) -> tuple[str, ...]:
        servable = {name for name in ENGINE_NAMES if not name.startswith("torch-")}
        if not set(engines) <= set(ENGINE_NAMES) or not set(engines) & servable:
            raise ValueError(f"only known engines, and at least one of {', '.join(servable)}")
        return engines

    @model_validator(mode="after")
    def _pin_is_measured(self) -> Self:
        if self.pin is not None and (self.pin not in self.engines or self.pin.startswith("torch-")):
            raise ValueError("pin one of the engines that are measured and that Triton can serve")
        return self

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
    calendar: str = "24/7"  # a scheduled night after a day without a session does not run
    max_age_h: Positive = 4.0  # nor does one that begins later than this


class PromotionSpec(Spec):
    """What a candidate must show on the way from approval to serving.

    Attributes:
        decision_hours: without a decision for so long it is rejected.
        answer_tolerance: |probability| difference to the benchmark's stored answer; the gate's own.
        load_requests: sent at each concurrency of infra validation.
        shadow_requests: mirrored to the candidate; at most `shadow_s` seconds of them.
        shares: of the requests, one canary step after another.
        canary_requests: of each step.
        canary_patience: answers of the candidate before its numbers count; a canary step goes on
            until it has them, and a comparison that ends with fewer is a broken goal.
        max_error_rate: of the candidate's requests, in validation, shadow and canary.
        max_p50_ratio: candidate's median latency over the champion's, the same requests.
        max_p99_ms: candidate's 99th percentile; None where only the ratio counts.
        max_disagreement: decisions unlike the champion's, as a fraction.
        allow_simulated: promote a model of simulated data all the same (rehearsals).
    """

    KIND: Literal["promotion"] = "promotion"
    decision_hours: Positive = 24.0
    answer_tolerance: Fraction = 0.02
    concurrency: Batches = (1, 8, 32)
    load_requests: PositiveInt = 400
    shadow_requests: PositiveInt = 400
    shadow_s: Positive = 60.0
    shares: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.05, 0.5, 1.0)
    canary_requests: PositiveInt = 400
    canary_patience: PositiveInt = 20
    max_error_rate: Fraction = 0.0
    max_p50_ratio: Positive = 2.0
    max_p99_ms: Positive | None = 50.0
    max_disagreement: Fraction = 0.2
    allow_simulated: bool = False

    @model_validator(mode="after")
    def _enough_is_asked(self) -> Self:
        if self.canary_patience > self.shadow_requests:
            raise ValueError(
                "canary_patience is more than shadow_requests: nothing could be judged"
            )
        return self

    @field_validator("shares")
    @classmethod
    def _rising_to_all(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if list(shares) != sorted(set(shares)) or shares[0] <= 0.0 or shares[-1] != 1.0:
            raise ValueError("shares must rise and end with 1")
        return shares


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
        serving: folder of the repository the Triton server serves; None means under `home`.
        triton: folder of the Triton server's own environment; None means the user's cache.
        triton_url: gRPC host:port of a running Triton server; None: that of `tickline triton up`.
        reviewers: who may decide on a promotion, names separated by commas.
        four_eyes: whoever started a promotion may not be the one who approves it.
        audit: the audit file of promotions; None means under `home`.
        auth_username: who Prefect's and MLflow's servers let in, once a password is set.
        auth_password: switches basic authentication on, in servers started here and for clients.
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
    serving: Path | None = None
    triton: Path | None = None
    triton_url: str | None = None
    reviewers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    four_eyes: bool = True
    audit: Path | None = None
    auth_username: str = "admin"
    auth_password: SecretStr | None = None

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

    @property
    def serving_repository(self) -> Path:
        """Root of the model repository that the Triton server serves."""
        return self.serving or self.home / "serving"

    @property
    def audit_file(self) -> Path:
        """The append-only record of promotions and rollbacks."""
        return self.audit or self.home / "audit.jsonl"

    @property
    def triton_home(self) -> Path:
        """Root of the Triton server's installations, shared by every `home`."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return self.triton or cache / "tickline" / "triton"

    def resolved(self, **changes: Any) -> "Settings":
        """A copy with the given fields replaced and `home` made absolute."""
        values = self.model_dump() | changes
        values["home"] = Path(values["home"]).expanduser().resolve()
        return Settings(**values)
