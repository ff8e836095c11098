"""Names of metrics in MLflow: `quality/auc` for the `auc` of goals and tables.

MLflow's pages put metrics with the same GROUP/ side by side. `mlflow_runs.log_metrics` logs under
these names. Runs of earlier versions have the plain names: read metrics through `plain`.

The run list's columns are kept in a tag of the experiment, for everybody with the link
(`infra.ui.runs_link`). The tag has the form of MLflow's button Share.
"""

import json

TEST_DATE = "test_date"  # parameter
VERDICT_TAG = "tickline.verdict"
ENGINE_TAG = "tickline.engine"
GROUPS = {
    "quality": (
        "auc", "accuracy", "average_precision", "average_precision_lift", "balanced_accuracy",
        "base_rate", "brier", "calibration_error", "log_loss", "mcc", "precision", "predicted_rate",
        "recall",
    ),
    "fp32": (  # compared with FP32
        "flips", "flip_fraction", "max_abs_dp", "p99_abs_dp", "mcnemar_p", "parity_error",
    ),
    "checks": ("non_finite", "accepted_non_finite", "batch_dependence"),
    "latency": (
        "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "open_p50_ms", "open_p99_ms",
        "drift", "floor_ms", "floor_fraction", "speedup",
    ),
    "memory": ("size_mib", "peak_mib", "gpu_mib"),
    "gate": ("goals_met", "goals_missed", "auc_resolution"),
    "promotion": ("replay_max_abs_dp", "disagreement", "candidate_errors"),
    "profit": ("profit_bps", "decided"),
    "data": ("rows", "rows_quarantined"),
    "training": (
        "learning_rate", "grad_norm", "samples_per_s", "samples_per_s_overall", "seconds",
        "best_epoch", "best_validation_auc", "finished_validation_auc", "iterations",
        "fit_seconds",
    ),
}  # fmt: skip
PREFIXES = {  # families of names
    "baseline_": "baseline/",
    "validation_": "validation/",
    "train_": "train/",
    "throughput_": "throughput/",
    "live_": "live/",
    "auc_": "quality/auc_",
    "average_precision_": "quality/average_precision_",
    "p50_ms_": "latency/p50_ms_",
    "p99_ms_": "latency/p99_ms_",
}
_LOGGED = {name: f"{group}/{name}" for group, names in GROUPS.items() for name in names} | {
    "throughput": "throughput/largest_batch"
}
_PLAIN = {logged: name for name, logged in _LOGGED.items()}


def logged_as(name: str) -> str:
    """The name in MLflow of a plain one; a name without a group, and a logged one, stay."""
    if name in _LOGGED:
        return _LOGGED[name]
    for plain_prefix, group in PREFIXES.items():
        if name.startswith(plain_prefix):
            return group + name.removeprefix(plain_prefix)
    return name


def plain(name: str) -> str:
    """The plain name of a logged one; a plain one, of a run of an earlier version, stays."""
    if name in _PLAIN:
        return _PLAIN[name]
    for plain_prefix, group in PREFIXES.items():
        if name.startswith(group):
            return plain_prefix + name.removeprefix(group)
    return name


# in the page's own names of columns, with their widths in pixels; all but the last two fit into a
# window of 1280
COLUMNS = {
    f"params.`{TEST_DATE}`": 92,
    f"tags.`{VERDICT_TAG}`": 100,
    **{f"metrics.`{logged_as(name)}`": 92 for name in ("auc", "baseline_auc")},
    **{f"metrics.`{logged_as(name)}`": 108 for name in ("p50_ms", "p99_ms")},
    f"tags.`{ENGINE_TAG}`": 132,
    "attributes.`Models`": 150,  # the registered version
}


def view_state() -> str:
    """The view's JSON: its columns, and nights newest first with their nested runs folded."""
    return json.dumps(
        {
            "selectedColumns": list(COLUMNS),
            "columnOrder": list(COLUMNS),
            "columnWidths": COLUMNS,
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
        }
    )
