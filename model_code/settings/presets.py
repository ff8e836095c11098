"""Named starting points of a specification: what suits a kind of network.

An option or a specification file overrides any value.
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # the design's Conv1d and Transformer encoder, with the defaults of every section
    "design": {"network": {"KIND": "conv-transformer"}},
    # cheap per window, so it sees four times as many, three times each; chosen on the validation
    # windows of the reference ticks' training day: docs/training.md
    "mlp": {
        "network": {"KIND": "mlp"},
        "split": {"train_windows": 65536},
        "training": {
            "epochs": 3,
            "windows_per_epoch": 65536,
            "batch_size": 128,
            "learning_rate": 1e-3,
        },
    },
}
