"""Which features a model version sees: what its windows must be computed with."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from model_code.features.definition import look_at
from model_code.settings import FeatureSetName, FeatureSpec, LabelName, Leaders, Names


class SeenFeatures(BaseModel):
    """A feature set and who looks at whom; two versions of equal ones share their windows.

    Attributes:
        feature_set: the 16 features.
        leaders: whom each instrument looks at, the strongest first, and no further than the set.
        exogenous: the series of the set `exogenous`, in the order of its columns.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    feature_set: FeatureSetName = "solo"
    leaders: Leaders = {}
    exogenous: Names = ()

    @property
    def seen(self) -> "SeenFeatures":
        """These alone, for comparison."""
        return SeenFeatures(
            feature_set=self.feature_set, leaders=self.leaders, exogenous=self.exogenous
        )

    @property
    def text(self) -> str:
        """For people: `paired, looks at others: B at A; C at A`."""
        looks = "; ".join(f"{name} at {', '.join(seen)}" for name, seen in self.leaders.items())
        series = f" ({', '.join(self.exogenous)})" if self.exogenous else ""
        return f"{self.feature_set}{series}, looks at others: {looks or 'none'}"


class ServedFeatures(SeenFeatures):
    """Everything that a version's windows and answers depend on.

    Attributes:
        label: what class 1 is.
        horizon_ms: how far the label looks ahead.
        reset_gap_s: after a longer gap all state starts anew.
    """

    label: LabelName
    horizon_ms: float
    reset_gap_s: float

    @classmethod
    def of(cls, spec: FeatureSpec, leaders: Leaders) -> Self:
        """Those of a feature table, with the leaders that its set looks at."""
        reach = look_at(spec.chosen_set)
        return cls(
            feature_set=spec.chosen_set,
            leaders={name: others[:reach] for name, others in leaders.items() if others[:reach]},
            exogenous=spec.exogenous,
            label=spec.chosen_label,
            horizon_ms=spec.horizon_ms,
            reset_gap_s=spec.reset_gap_s,
        )


SOLO = SeenFeatures()
"""Of a version from before there were sets."""
