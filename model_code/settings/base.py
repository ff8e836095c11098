"""Base of every specification, and the kinds of values that they share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# JSON and forms deliver lists, which strict mode would refuse
Names = Annotated[tuple[str, ...], Field(strict=False)]
Batches = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
PositiveInt = Annotated[int, Field(gt=0)]


class Spec(BaseModel):
    """Base of every specification: frozen, strict, no unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
