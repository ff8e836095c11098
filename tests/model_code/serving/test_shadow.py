"""When an answer is a decision for an opportunity."""

import numpy as np
import pytest

from model_code.serving.shadow import decision


@pytest.mark.parametrize(
    ("probability", "threshold", "yes"),
    [(0.51, 0.5, True), (0.49, 0.5, False), (0.3, 0.25, True), (0.7, 0.75, False)],
)
def test_an_answer_is_decided_at_the_threshold(
    probability: float, threshold: float, yes: bool
) -> None:
    logits_BC = np.log([[1 - probability, probability]]).astype(np.float32)
    assert decision(logits_BC, threshold) is yes
