"""Base of every specification, and the kinds of values that they share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _unique(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) < len(values):
        raise ValueError("each value may occur only once")
    return values


# JSON and forms deliver lists, which strict mode would refuse
Names = Annotated[tuple[str, ...], Field(strict=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(gt=0)]
Counts = Annotated[
    tuple[PositiveInt, ...], Field(strict=False, min_length=1), AfterValidator(_unique)
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and scikit-learn take


class Spec(BaseModel):
    """Base of every specification: frozen, strict, no unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
