"""Options of the prediction log, and the log they ask for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_code.settings import Settings

if TYPE_CHECKING:
    from infra.live.feedback.prediction_log import PredictionLog
    from infra.live.spec import ServiceSpec

LogRate = Annotated[
    float | None,
    typer.Option(
        help="Judge decisions by what happened after them, and log this share with their "
        "input; 0: judge alone.",
        show_default="neither, or as in the specification",
    ),
]
LogKeepDays = Annotated[
    float | None,
    typer.Option(
        help="Delete older files of the log; without a rate it keeps 1%.", show_default="14"
    ),
]


def log_changes(rate: float | None, keep_days: float | None) -> dict[str, Any]:
    """Changes of the service's specification; none if neither option is given."""
    changes = {"rate": rate, "keep_days": keep_days}
    return {"log": changes} if rate is not None or keep_days is not None else {}


def prediction_log(
    settings: Settings, spec: "ServiceSpec", say: Callable[[str], None]
) -> "PredictionLog | None":
    """The log, in the group's folder of the home; None without one in the specification."""
    if spec.log is None:
        return None
    from infra.live.feedback.prediction_log import PredictionLog
    from infra.live.feedback.spec import feedback_folder
    from infra.servers import environment

    group_id = spec.kafka.group_id
    folder = feedback_folder(settings.home, group_id)
    return PredictionLog(spec.log, group_id, folder, environment(settings), say)
