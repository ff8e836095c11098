"""What a version's figures refer to: its features, its label and its split.

Two versions' figures can be compared only if these are the same.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from model_code.settings import FeatureSetName, FeatureSpec, LabelName, Names, SplitSpec

UNKNOWN = "an earlier Tickline registered it and did not record its features, label and split"
ANSWERS = ("features", "label", "horizon_ms", "cost_bps", "reset_gap_s")


class Terms(BaseModel):
    """Features, label and split of a version.

    Attributes:
        features: version of the formulas, `FeatureSpec.KIND`.
        feature_set: which 16 features.
        exogenous: the series of the set `exogenous`.
        label: what counts as an opportunity.
        horizon_ms: how far the label looks ahead.
        cost_bps: charged in the label.
        reset_gap_s: after a longer gap all state of features and label starts anew.
        split: which windows train, validate and judge.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    features: str
    feature_set: FeatureSetName
    exogenous: Names = ()
    label: LabelName
    horizon_ms: float
    cost_bps: float
    reset_gap_s: float
    split: SplitSpec

    @classmethod
    def of(cls, features: FeatureSpec, split: SplitSpec) -> Self:
        """Those of a night, its feature set and label named."""
        return cls(
            features=features.KIND,
            feature_set=features.chosen_set,
            exogenous=features.exogenous,
            label=features.chosen_label,
            horizon_ms=features.horizon_ms,
            cost_bps=features.cost_bps,
            reset_gap_s=features.reset_gap_s,
            split=split,
        )

    def differences(self, other: "Terms | None") -> tuple[str, ...]:
        """What differs from another version's, in words; unknown terms differ.

        Args:
            other: of the other version; None if it did not record them.
        """
        if other is None:
            return (UNKNOWN,)
        mine, theirs = _flat(self), _flat(other)
        names = dict.fromkeys((*mine, *theirs))
        return tuple(
            f"{name} {_text(mine.get(name))} instead of {_text(theirs.get(name))}"
            for name in names
            if mine.get(name) != theirs.get(name)
        )

    def same_question(self, other: "Terms | None") -> bool:
        """Whether both versions' answers mean the same on the same rows.

        Another feature set or split leaves the meaning as it is: the other version is measured on
        its own features of the same rows.
        """
        return other is not None and all(
            getattr(self, name) == getattr(other, name) for name in ANSWERS
        )


def _flat(terms: Terms) -> dict[str, object]:
    found = terms.model_dump(exclude={"split"})
    return found | {f"split.{name}": value for name, value in terms.split.model_dump().items()}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
