"""Columns of MLflow's run list, kept in a tag of the experiment for everybody with the link.

`infra.ui.runs_link` opens the list with them. The tag has the form of MLflow's button Share.
"""

import json

from tasks.runs.metric_names import logged_as

TEST_DATE = "test_date"  # parameter
VERDICT_TAG = "tickline.verdict"
ENGINE_TAG = "tickline.engine"
# in the page's own names of columns, with their widths in pixels
COLUMNS = {
    f"params.`{TEST_DATE}`": 96,
    f"tags.`{VERDICT_TAG}`": 116,
    f"tags.`{ENGINE_TAG}`": 126,
    **{f"metrics.`{logged_as(name)}`": 104 for name in ("auc", "baseline_auc")},
    **{f"metrics.`{logged_as(name)}`": 118 for name in ("p50_ms", "p99_ms")},
    "attributes.`Models`": 170,  # the registered version
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
