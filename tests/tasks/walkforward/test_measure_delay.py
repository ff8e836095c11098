"""An engine that was not built has no latency."""

from typing import Any, cast

import pytest

from model_code.errors import EngineError
from tasks.nightly.records import BuiltEngine
from tasks.walkforward.measure_delay import measure_delay


def test_an_engine_that_was_not_built_is_refused() -> None:
    absent = BuiltEngine(name="onnxruntime-fp32", folder=None, unavailable="no", mlflow_run_id=None)
    nothing = cast(Any, None)
    with pytest.raises(EngineError, match="onnxruntime-fp32 was not built: no") as caught:
        measure_delay.fn(nothing, absent, nothing, nothing)
    assert "--delay-ms" in caught.value.remedy
