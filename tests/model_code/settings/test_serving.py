import pytest
from pydantic import ValidationError

from model_code.settings import ServingSpec


def test_the_defaults_are_the_designs() -> None:
    assert ServingSpec().text == (
        "instances 1, threads the engine's, queue delay 100 us, preferred batches 8/16/32"
    )


def test_a_list_from_yaml_and_no_preferred_sizes_are_read() -> None:
    found = ServingSpec.model_validate({"preferred_batch_sizes": [4, 8], "threads": 1})
    assert found.text.endswith("preferred batches 4/8")
    assert ServingSpec(preferred_batch_sizes=()).text.endswith("preferred batches none")


@pytest.mark.parametrize("sizes", [(8, 8), (16, 8), (1, 8), (65,), (0,), (-8,)])
def test_sizes_must_ascend_within_the_largest_batch(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="give ascending numbers from 2 to 64"):
        ServingSpec(preferred_batch_sizes=sizes)


@pytest.mark.parametrize(
    "values",
    [{"instances": 0}, {"instances": 17}, {"queue_delay_us": -1}, {"threads": 0}, {"delay": 1}],
)
def test_impossible_values_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ServingSpec.model_validate(values)
