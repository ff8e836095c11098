"""Which features and which label suit a market, where the specification leaves it open."""

from collections.abc import Collection

from model_code.features.venues import siblings
from model_code.settings import FeatureSpec, ProfileName


def settled(
    spec: FeatureSpec, profiles: Collection[ProfileName], symbols: Collection[str]
) -> tuple[FeatureSpec, str]:
    """The specification with feature set and label named, and a note if the market chose them.

    FX quoted on several venues is judged by crossings of the venues: a single venue's indicative
    spread leaves no round trip within milliseconds. Everything else is judged by round trips, with
    the state of leading instruments among the features.

    Args:
        spec: what it names counts.
        profiles: of the validated days.
        symbols: all instruments.
    """
    several = set(profiles) == {"fx"} and all(siblings(sorted(symbols)).values())
    chosen = {
        "feature_set": spec.feature_set or ("venues" if several else spec.chosen_set),
        "label": spec.label or ("cross-venue" if several else spec.chosen_label),
    }
    found = spec.model_copy(update=chosen)
    if not several or found == spec:
        return found, ""
    return found, f"features {found.feature_set}, label {found.label}: FX on several venues"
