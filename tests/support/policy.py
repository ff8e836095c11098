"""The policy of a test's serving repository."""

from typing import Any

import yaml

from model_code.repository.policy import PolicyFile, policy_path
from model_code.settings import Settings
from tests.support.promotion import PATIENT


def write_policy(settings: Settings, **changes: Any) -> PolicyFile:
    """Two reviewers, patient limits and this test's server; what it replaces is gone."""
    document = {
        "reviewers": ["ada", "grace"],
        "limits": PATIENT.model_dump(mode="json", exclude_unset=True),
        "triton_url": settings.triton_url,
    }
    path = policy_path(settings.serving_repository)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document | changes))
    return PolicyFile.load(settings.serving_repository)
