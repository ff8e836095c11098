"""Specifications (`*Spec`) of jobs: *what* to compute. Frozen, strict, hashed into cache keys."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from model_code.settings.base import Counts, Fraction, Names, Positive, PositiveInt, Spec
from model_code.settings.contract import (
    ENGINE_NAMES,
    MAX_BATCH_SIZE,
    NIGHTLY_ENGINES,
    REFERENCE_ENGINE,
)
from model_code.settings.folder import without_password
from model_code.settings.models import (
    DESIGN,
    AnyNetworkSpec,
    BlendSpec,
    BoostingSpec,
    MlpSpec,
    ModelSpec,
    NetworkSpec,
    TrainingSpec,
)
from model_code.settings.serving import ServingSpec

ProfileName = Literal["crypto", "us-equities", "fx"]


class ValidationSpec(Spec):
    """Thresholds for a usable day (`tasks/validation/`). None: the profile's own."""

    KIND: Literal["great-expectations"] = "great-expectations"
    profile: ProfileName | None = None  # None: what the store states, else presumed
    max_fault_fraction: Fraction = 0.01
    minimum_rows: PositiveInt = 1000
    maximum_gap_s: Positive | None = None
    maximum_spread_bps: Positive | None = None
    maximum_jump_sigma: Positive = 50.0
    trade_band_bps: Positive = 200.0
    max_trade_fault_fraction: Fraction | None = None
    truncated_fraction: Fraction = 0.1  # of the usual session; more missing at an end fails
    minimum_row_share: Fraction = 0.25  # of the usual number of rows; fewer fail


FeatureSetName = Literal["solo", "paired", "venues", "depth", "exogenous"]
LabelName = Literal["executable-roundtrip", "cross-venue", "mid-move"]
Leaders = dict[str, Annotated[tuple[str, ...], Field(strict=False)]]


SeriesName = Annotated[str, Field(pattern=r"^[^./]+\.[^/]+$")]  # table.column
MOST_SERIES = 4


class FeatureSpec(Spec):
    """Feature and label parameters (formulas: `model_code/features`).

    Attributes:
        feature_set: the 16 features: an instrument's own (`solo`), or with those of others
            (`paired`, `venues`), of its Level-2 book (`depth`) or of series (`exogenous`); None:
            what suits the market (`features.market.settled`).
        exogenous: the series of the set `exogenous`, each `table.column`, at most four.
        leaders: whom each instrument looks at, the strongest first; None: suggested by the
            training days.
        label: what counts as an opportunity; None: what suits the market.
        horizon_ms: how far the label looks ahead.
        cost_bps: of the round trip or move, in basis points of the price.
        reset_gap_s: after a longer gap all state starts anew.
    """

    KIND: Literal["level1-16"] = "level1-16"
    feature_set: FeatureSetName | None = None
    exogenous: Annotated[tuple[SeriesName, ...], Field(strict=False, max_length=MOST_SERIES)] = ()
    leaders: Leaders | None = None
    label: LabelName | None = None
    horizon_ms: Positive = 100.0
    cost_bps: Annotated[float, Field(ge=0.0)] = 0.0
    reset_gap_s: Positive = 10.0

    @model_validator(mode="after")
    def _series_belong_to_their_set(self) -> Self:
        if (self.feature_set == "exogenous") != bool(self.exogenous):
            raise ValueError(
                "feature_set exogenous needs exogenous: [table.column, ...], and no other set does"
            )
        return self

    def with_set(self, feature_set: FeatureSetName, exogenous: tuple[str, ...] = ()) -> Self:
        """The same label and gaps with another feature set."""
        return self.model_copy(update={"feature_set": feature_set, "exogenous": exogenous})

    @property
    def chosen_set(self) -> FeatureSetName:
        """The feature set, `paired` unless another is named."""
        return self.feature_set or "paired"

    @property
    def chosen_label(self) -> LabelName:
        """The label, `executable-roundtrip` unless another is named."""
        return self.label or "executable-roundtrip"


class SplitSpec(Spec):
    """Time-ordered split: the newest day is the test day, the end of the rest is validation."""

    KIND: Literal["newest-day"] = "newest-day"
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    embargo_ms: Annotated[float, Field(ge=0.0)] = 1000.0
    train_windows: PositiveInt = 131072
    validation_windows: PositiveInt = 16384
    test_windows: PositiveInt = 32768


class BenchmarkSpec(Spec):
    """How engines are measured against each other."""

    KIND: Literal["interleaved"] = "interleaved"
    engines: Names = NIGHTLY_ENGINES
    pin: str | None = None  # stage this engine or none; None: the fastest that passes the gate
    anchor_nights: PositiveInt = 30  # compare with the version that served so many days ago, too
    warmup: PositiveInt = 50
    requests: PositiveInt = 1000  # single-window requests per engine
    rounds: PositiveInt = 50
    repeats: PositiveInt = 3  # the rounds are spread over so many measurements
    batches: Counts = (1, 8, 16, 32, MAX_BATCH_SIZE)
    throughput_rounds: PositiveInt = 5
    open_loop_hz: Positive = 100.0
    open_loop_requests: PositiveInt = 300
    served: bool = True  # measure through a real Triton server too, if one is installed
    concurrency: Counts = (1, 8, 32)  # clients of the closed loop through Triton
    concurrent_requests: PositiveInt = 1000

    @field_validator("engines")
    @classmethod
    def _known(cls, engines: tuple[str, ...]) -> tuple[str, ...]:
        servable = {name for name in ENGINE_NAMES if not name.startswith("torch-")}
        if not set(engines) <= set(ENGINE_NAMES) or not set(engines) & servable:
            raise ValueError(f"only known engines, and at least one of {', '.join(servable)}")
        return engines

    @field_validator("batches")
    @classmethod
    def _within_the_engines_limit(cls, batches: tuple[int, ...]) -> tuple[int, ...]:
        if max(batches) > MAX_BATCH_SIZE:
            raise ValueError(f"engines and server take at most {MAX_BATCH_SIZE} windows at once")
        return batches

    @model_validator(mode="after")
    def _pin_is_measured(self) -> Self:
        if self.pin is not None and (self.pin not in self.engines or self.pin.startswith("torch-")):
            raise ValueError("pin one of the engines that are measured and that Triton can serve")
        return self

    @property
    def measured(self) -> tuple[str, ...]:
        """The requested engines and the reference, in table order."""
        return tuple(name for name in ENGINE_NAMES if name in {REFERENCE_ENGINE, *self.engines})


class AttributionSpec(Spec):
    """How many windows show what the chosen model looks at (`model_code/attribution`).

    Attributes:
        windows: of the test date, as many of each instrument and label; 0: none, and no stage.
        background: training windows of the instrument that masked values come from.
    """

    KIND: Literal["permutation"] = "permutation"
    windows: Annotated[int, Field(ge=0)] = 96
    background: PositiveInt = 4


class NightlySpec(Spec):
    """All inputs of the nightly flow; its JSON is logged with every run."""

    KIND: Literal["nightly"] = "nightly"
    # None: TICKLINE_MARKET, or else the simulated market; without a password
    market: Annotated[str, AfterValidator(without_password)] | None = None
    instruments: Names = ()  # empty: all of the store
    train_days: PositiveInt = 20
    test_date: str | None = None  # None: the newest day of the store
    allow_missing: Names = ()  # instruments that may have no ticks on the test date
    validation: ValidationSpec = ValidationSpec()
    features: FeatureSpec = FeatureSpec()
    split: SplitSpec = SplitSpec()
    network: AnyNetworkSpec = BlendSpec()
    training: TrainingSpec = TrainingSpec()
    other_models: Annotated[tuple[ModelSpec, ...], Field(strict=False)] = (
        ModelSpec(name="mlp", network=MlpSpec()),
        ModelSpec(name="boosting", network=BoostingSpec()),
        DESIGN,
    )  # trained on the same windows; the best is staged
    attributions: AttributionSpec = AttributionSpec()
    benchmark: BenchmarkSpec = BenchmarkSpec()
    goals: str | None = None  # path of a goals YAML; None: the one shipped with the gate
    serving: ServingSpec = ServingSpec()  # how the server runs what is staged
    calendar: str = "24/7"  # a scheduled run after a day without a session is skipped
    max_age_h: Positive = 4.0  # a scheduled run that starts later than this is skipped

    @model_validator(mode="before")
    @classmethod
    def _a_named_network_is_trained_alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and "network" in values and "other_models" not in values:
            return values | {"other_models": ()}
        return values

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two models have the same name: {', '.join(names)} "
                "(other_models: [] trains the first alone)"
            )
        return self

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Every model of the night; `network` with `training` comes first."""
        name = "design" if isinstance(self.network, NetworkSpec) else self.network.KIND
        first = ModelSpec(name=name, network=self.network, training=self.training)
        return (first, *self.other_models)

    @property
    def starts_from_champion(self) -> bool:
        """Whether any model of the night starts from the champion's weights."""
        return any(model.training.start == "champion" for model in self.models)


class PromotionSpec(Spec):
    """What a promotion requires of the candidate between approval and serving.

    Attributes:
        decision_hours: without a decision within this time the promotion is rejected.
        answer_tolerance: |probability| difference to the benchmark's prediction; as in the gate.
        load_requests: sent at each concurrency of infra validation.
        shadow_requests: recorded requests, mirrored to the candidate for at most `shadow_s`
            seconds.
        positive_requests: requests on which the champion decides true; shadow replays recorded ones
            until it has so many.
        shares: of the requests, one canary step after another.
        canary_requests: recorded requests of each step.
        canary_patience: responses of the candidate that a step needs; it continues until it has
            them, and a comparison with fewer breaks a goal.
        canary_step_s: a canary step lasts at least so long, in seconds.
        canary_live_requests: of clients, to the candidate, that a step needs where there is live
            traffic.
        canary_live_s: a step waits for them until it has lasted so long, in seconds.
        max_error_rate: of the candidate's requests, in validation, shadow and canary.
        max_p50_ratio: median ratio of the candidate's latency to the champion's, on paired
            requests.
        max_p99_ms: candidate's 99th percentile; None if only the ratio counts.
        max_disagreement: fraction of decisions that differ from the champion's.
        max_positive_disagreement: the same of the requests on which the champion decides true.
        alpha: probability that any test of shadow or canary stops a candidate that keeps its
            limits; each test gets an equal part.
        allow_simulated: allow a model of simulated data (rehearsals).
        not_comparable: why a version may be promoted that its gate could not compare with the
            champion; None: it may not.
    """

    KIND: Literal["promotion"] = "promotion"
    decision_hours: Positive = 24.0
    answer_tolerance: Fraction = 0.02
    concurrency: Counts = (1, 8, 32)
    load_requests: PositiveInt = 400
    shadow_requests: PositiveInt = 400
    shadow_s: Positive = 60.0
    positive_requests: PositiveInt = 100
    shares: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.05, 0.5, 1.0)
    canary_requests: PositiveInt = 400
    canary_patience: PositiveInt = 20
    canary_step_s: Positive = 5.0
    canary_live_requests: PositiveInt = 50
    canary_live_s: Positive = 60.0
    max_error_rate: Fraction = 0.0
    max_p50_ratio: Positive = 2.0
    max_p99_ms: Positive | None = 50.0
    max_disagreement: Fraction = 0.2
    max_positive_disagreement: Fraction = 0.5
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    allow_simulated: bool = False
    not_comparable: Annotated[str, Field(pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _patience_is_reachable(self) -> Self:
        if self.canary_patience > self.shadow_requests:
            raise ValueError("canary_patience exceeds shadow_requests: nothing could be judged")
        return self

    @field_validator("shares")
    @classmethod
    def _rising_to_all(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if list(shares) != sorted(set(shares)) or shares[0] <= 0.0 or shares[-1] != 1.0:
            raise ValueError("shares must rise and end with 1")
        return shares
