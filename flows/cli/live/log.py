"""Options of the prediction log, and the log they ask for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from model_code.settings import Settings

if TYPE_CHECKING:
    from infra.live.feedback.prediction_log import PredictionLog

LogRate = Annotated[
    float | None,
    typer.Option(
        help="Judge decisions by what happened after them, and log this share with their "
        "input; 0: judge alone.",
        show_default="neither",
    ),
]
LogKeepDays = Annotated[
    float | None,
    typer.Option(help="Delete older files of the log.", show_default="14"),
]


def prediction_log(
    settings: Settings,
    group_id: str,
    rate: float | None,
    keep_days: float | None,
    say: Callable[[str], None],
) -> "PredictionLog | None":
    """The log, in the group's folder of the home; None if no rate is given.

    Raises:
        ConfigError: a value is out of range.
    """
    if rate is None:
        return None
    from flows.cli.options import read_spec
    from infra.live.feedback.prediction_log import PredictionLog
    from infra.live.feedback.spec import LogSpec, feedback_folder
    from infra.servers import environment

    spec = read_spec(LogSpec, None, {"rate": rate, "keep_days": keep_days})
    folder = feedback_folder(settings.home, group_id)
    return PredictionLog(spec, group_id, folder, environment(settings), say)
