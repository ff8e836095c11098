"""Named starting points of a specification: one kind of network, trained alone.

An option or a specification file overrides any value.
"""

from typing import Any

from model_code.settings.models import DESIGN

PRESETS: dict[str, dict[str, Any]] = {
    # the design's Conv1d and Transformer encoder
    "design": DESIGN.model_dump(include={"network", "training"}),
    # a smaller encoder with positions and the summaries' perceptron
    "transformer-2": {
        "network": {"KIND": "conv-transformer-2"},
        "training": {"windows_per_epoch": 32768, "precision": "auto"},
    },
    "mlp": {"network": {"KIND": "mlp"}},
    "boosting": {"network": {"KIND": "boosting"}},
    "blend": {"network": {"KIND": "blend"}},
}
