"""Named starting points of a specification: what suits a kind of network.

An option or a specification file overrides any value.
"""

from typing import Any

# cheap per window, so they are trained and judged on far more of them; chosen on the validation
# windows of the reference ticks' training day: docs/models.md
_CHEAP: dict[str, Any] = {
    "split": {"train_windows": 65536, "validation_windows": 16384, "test_windows": 65536},
    "training": {
        "precision": "fp32",  # BF16 is not faster for layers this small
        "epochs": 3,
        "windows_per_epoch": 65536,
        "batch_size": 128,
        "learning_rate": 1e-3,
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    # the design's Conv1d and Transformer encoder, with the defaults of every section
    "design": {"network": {"KIND": "conv-transformer"}},
    "mlp": {"network": {"KIND": "mlp"}} | _CHEAP,
    "boosting": {"network": {"KIND": "boosting"}, "split": _CHEAP["split"]},
    "blend": {"network": {"KIND": "blend"}} | _CHEAP,
}
