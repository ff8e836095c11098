"""Tags of a registered model version that later nights and promotions read."""

import json
from collections.abc import Mapping

from mlflow.tracking import MlflowClient
from pydantic import ValidationError

from model_code.features.served import SOLO, SeenFeatures
from model_code.repository.terms import Terms

THRESHOLD_TAG = "threshold"
FEATURE_SET_TAG = "feature_set"
LEADERS_TAG = "leaders"  # JSON
TERMS_TAG = "terms"  # JSON: features, label and split that its figures refer to
START_TAG = "start"  # JSON: `StartingPoint` without the weights
WEIGHTS_FOLDER, WEIGHTS_FILE = "weights", "model.pt"  # of the run that registered the version
EXOGENOUS_TAG = "exogenous"  # JSON
EXPIRED_TAG = "expired"  # when `tickline gc` decided to delete the version's files, ISO 8601
FREED_TAG = "tickline.freed"  # of versions and runs: when their files were gone, ISO 8601
PROMOTION_TAG = "promotion"  # WANTED, OPENED, or why it is closed; absent: nobody asked for it
WANTED, OPENED = "wanted", "opened"
STAGED_TAG = "staged_sha256"  # `Manifest.identity` of what was staged
STAGED_BY_TAG = "staged_by"  # MLflow run that staged it
EVIDENCE = "[Evidence page]"  # last line of a version's description


def link_evidence(client: MlflowClient, name: str, version: str, link: str) -> None:
    """Put the evidence page of a version's newest promotion into its description."""
    known = client.get_model_version(name, version).description or ""
    text = known.partition(EVIDENCE)[0].rstrip()
    client.update_model_version(name, version, f"{text}\n\n{EVIDENCE}({link})")


def want_promotion(client: MlflowClient, name: str, version: str) -> None:
    """Note that a version wants a promotion, unless its tag already says how that went."""
    if PROMOTION_TAG not in client.get_model_version(name, version).tags:
        client.set_model_version_tag(name, version, PROMOTION_TAG, WANTED)


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


def terms_of(tags: Mapping[str, str]) -> Terms | None:
    """What a model version's figures refer to; None if its tags do not say, or not in full."""
    try:
        return Terms.model_validate_json(tags[TERMS_TAG])
    except (KeyError, ValidationError):  # of an earlier or a later version: unknown
        return None
