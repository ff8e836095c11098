"""Specifications of models: kinds of network, their sizes, and how they are trained."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from model_code.settings.base import Fraction, Positive, PositiveInt, Seed, Spec


def _require_divisible(d_model: int, heads: int) -> None:
    if d_model % heads:
        raise ValueError(f"{heads} heads do not divide d_model {d_model}")


class NetworkSpec(Spec):
    """The Conv1d + Transformer encoder's sizes."""

    KIND: Literal["conv-transformer"] = "conv-transformer"
    d_model: PositiveInt = 64
    heads: PositiveInt = 8
    layers: PositiveInt = 4
    feed_forward: PositiveInt = 2048
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        _require_divisible(self.d_model, self.heads)
        return self


class ConvTransformer2Spec(Spec):
    """A smaller encoder with learned positions, and a perceptron on summaries beside it."""

    KIND: Literal["conv-transformer-2"] = "conv-transformer-2"
    d_model: PositiveInt = 64
    heads: PositiveInt = 8
    layers: PositiveInt = 2
    feed_forward: PositiveInt = 256
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    branch: bool = True  # add the logits of a perceptron (`MlpSpec`) on the window's summaries

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        _require_divisible(self.d_model, self.heads)
        return self


class PerceptronSpec(Spec):
    """A multi-layer perceptron's sizes."""

    hidden: PositiveInt = 256
    layers: PositiveInt = 2  # hidden layers
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2


class MlpSpec(PerceptronSpec):
    """A multi-layer perceptron; it sees summaries of the window, as boosting does."""

    KIND: Literal["mlp"] = "mlp"


class TreesSpec(Spec):
    """Gradient-boosted trees of `boosting` and `blend`; the baseline has these defaults."""

    KIND: Literal["histogram-boosting"] = "histogram-boosting"
    max_iter: PositiveInt = 600  # trees at most; fitting stops early on the validation windows
    learning_rate: Positive = 0.05
    max_leaf_nodes: Annotated[int, Field(ge=2)] = 31
    min_samples_leaf: PositiveInt = 40
    l2_regularization: Annotated[float, Field(ge=0.0)] = 10.0
    max_features: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3  # share of columns at each split


class BoostingSpec(Spec):
    """Gradient boosting alone, on summaries of the window."""

    KIND: Literal["boosting"] = "boosting"
    trees: TreesSpec = TreesSpec()


class BlendSpec(PerceptronSpec):
    """Perceptrons and gradient boosting on the same summaries, log-odds averaged."""

    KIND: Literal["blend"] = "blend"
    members: PositiveInt = 1  # perceptrons; their logits are averaged first
    # of the perceptrons; fitted: the one with the lowest log loss on the validation windows
    weight: Fraction | Literal["fitted"] = "fitted"
    trees: TreesSpec = TreesSpec()


DEFAULT_KIND = "blend"  # of a network whose KIND is not given


def _network_kind(value: object) -> str:
    kind = value.get("KIND") if isinstance(value, dict) else getattr(value, "KIND", None)
    return str(kind or DEFAULT_KIND)


AnyNetworkSpec = Annotated[
    Annotated[NetworkSpec, Tag("conv-transformer")]
    | Annotated[ConvTransformer2Spec, Tag("conv-transformer-2")]
    | Annotated[MlpSpec, Tag("mlp")]
    | Annotated[BoostingSpec, Tag("boosting")]
    | Annotated[BlendSpec, Tag("blend")],
    Discriminator(_network_kind),
]


class TrainingSpec(Spec):
    """AdamW, cosine annealing with warm-up, mixed precision.

    The defaults suit perceptrons: seconds on two cores. For the design's network see `DESIGN`, for
    a GPU `docs/training.md`.
    """

    KIND: Literal["adamw-cosine"] = "adamw-cosine"
    epochs: PositiveInt = 3
    # wall-clock time: windows per epoch and epochs are chosen from the measured rate, not from here
    budget_minutes: Positive | None = None
    validated_windows: PositiveInt = 16384  # of the validation windows, after each epoch
    windows_per_epoch: PositiveInt = 65536  # every training window is used once before any twice
    batch_size: PositiveInt = 128  # a multiple of the processes
    processes: PositiveInt = 1  # by torchrun; a model without weights is fitted in one
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    clip_norm: Positive = 1.0
    patience: PositiveInt = 3
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # BF16 gains nothing here
    averaging: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # decay of the weights' mean; 0: none
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    # swap the sides of the market in half of the windows; None: where features and label allow it
    mirror: bool | None = None
    # horizons whose labels are learned too, in ms; the exported network has no part of it
    auxiliary: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    start: Literal["fresh", "champion"] = "fresh"  # weights; the serving version's, or new ones
    distillation: Fraction = 0.0  # weight of boosting, out of fold, in the targets; 0: labels alone
    seed: Seed = 7


class ModelSpec(Spec):
    """One model of a night.

    Attributes:
        name: unique in the night.
        network: kind and sizes.
        training: how it is trained.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    network: AnyNetworkSpec
    training: TrainingSpec = TrainingSpec()


DESIGN = ModelSpec(
    name="design",
    network=NetworkSpec(),
    training=TrainingSpec(
        validated_windows=2048,
        windows_per_epoch=4096,
        batch_size=32,
        learning_rate=5e-4,
        precision="auto",
        mirror=False,
    ),
)
"""The design's network; its training takes at most four minutes on two cores without BF16."""
