"""Tags of a registered model version that later nights and promotions read."""

import json
from collections.abc import Mapping

from model_code.features.served import SOLO, SeenFeatures

THRESHOLD_TAG = "threshold"
FEATURE_SET_TAG = "feature_set"
LEADERS_TAG = "leaders"  # JSON
START_TAG = "start"  # JSON: `StartingPoint` without the weights
WEIGHTS_FOLDER, WEIGHTS_FILE = "weights", "model.pt"  # of the run that registered the version
EXOGENOUS_TAG = "exogenous"  # JSON


def seen_tags(features: SeenFeatures) -> dict[str, str]:
    """The tags of a model version that name its features."""
    tags = {FEATURE_SET_TAG: features.feature_set, LEADERS_TAG: json.dumps(features.leaders)}
    if features.exogenous:
        tags[EXOGENOUS_TAG] = json.dumps(features.exogenous)
    return tags


def seen_of(tags: Mapping[str, str]) -> SeenFeatures:
    """The features that a model version's tags name; `solo` without leaders if they name none."""
    if FEATURE_SET_TAG not in tags:
        return SOLO
    leaders = json.loads(tags.get(LEADERS_TAG, "{}"))
    series = json.loads(tags.get(EXOGENOUS_TAG, "[]"))
    return SeenFeatures.model_validate(
        {"feature_set": tags[FEATURE_SET_TAG], "leaders": leaders, "exogenous": series}
    )
