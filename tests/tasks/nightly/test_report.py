"""What a night's description says of attributions that are off or failed."""

from typing import Any

import pytest

from tasks.nightly.records import Attributed
from tasks.nightly.report import publish_attributions

RUN: Any = object()  # nothing is logged


@pytest.mark.parametrize(
    ("attributed", "text"),
    [
        (None, ""),
        (
            Attributed(failure="the graph is refused"),
            "What the model looks at: not computed (the graph is refused)\n\n",
        ),
    ],
)
def test_attributions_that_are_off_say_nothing_and_failed_ones_say_why(
    attributed: Attributed | None, text: str
) -> None:
    assert publish_attributions(RUN, attributed, None) == text
