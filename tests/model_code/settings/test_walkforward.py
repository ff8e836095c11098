"""What a walk forward may be asked for."""

from typing import Any

import pytest
from pydantic import ValidationError

from model_code.settings import MlpSpec, NightlySpec
from model_code.settings.changes import from_yaml, to_yaml
from model_code.settings.walkforward import WalkforwardSpec


def test_a_specification_survives_yaml() -> None:
    spec = WalkforwardSpec(night=NightlySpec(network=MlpSpec()), delay_ms=0.5)
    assert WalkforwardSpec.model_validate(from_yaml(to_yaml(spec))) == spec


@pytest.mark.parametrize(
    "wrong",
    [{"first_test": 1.5}, {"seeds": 0}, {"tuning_trials": 0}, {"delay_ms": -1.0}, {"trials": 3}],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        WalkforwardSpec(**wrong)
