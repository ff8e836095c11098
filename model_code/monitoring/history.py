"""The last nightly runs as plain records, for the dashboard and the metrics."""

import datetime as dt

from pydantic import BaseModel, ConfigDict

from model_code.repository.exceptions import ApprovedException

FINISHED = "FINISHED"
RUNNING = "RUNNING"
BAD_STATES = ("Failed", "Crashed", "TimedOut", "Cancelled")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageTime(_Frozen):
    """One stage of one nightly run.

    Attributes:
        seconds: summed over the stage's task runs.
        state: their worst state: one of `BAD_STATES`, else Completed, else Cached.
    """

    name: str
    state: str
    seconds: float


class Night(_Frozen):
    """One nightly run, from its parent run in MLflow and its flow run in Prefect.

    Attributes:
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED.
        seconds: from the first start to the last end, including pauses before a rerun; None while
            it runs.
        verdict: the gate's verdict; None if the run did not reach the gate.
        metrics: of the parent run, e.g. `auc`, `p99_ms`, `rows`; non-finite values are omitted.
        stages: empty if Prefect does not respond or no longer has the run.
    """

    name: str
    mlflow_run_id: str
    flow_run_id: str
    status: str
    started: dt.datetime
    seconds: float | None
    simulated: bool
    verdict: str | None = None
    engine: str | None = None
    error: str | None = None
    metrics: dict[str, float] = {}
    stages: tuple[StageTime, ...] = ()

    @property
    def ended(self) -> dt.datetime | None:
        """When it ended; None while it runs."""
        return None if self.seconds is None else self.started + dt.timedelta(seconds=self.seconds)


class Serving(_Frozen):
    """The champion: its registered version and when that was approved.

    After a rollback this is the older approval: the age is the model's, not the last swap's.
    """

    version: str
    since: dt.datetime


class History(_Frozen):
    """Everything the metrics and the dashboard show.

    Attributes:
        nights: newest first.
        champion: None before the first promotion.
        sources: whether each store responded, by name; the audit file: whether it is intact.
        exception: of the serving version's approval; None if it has none.
        problem: what contradicts the champion, with its cure; empty if nothing does.
    """

    nights: tuple[Night, ...]
    champion: Serving | None
    sources: dict[str, bool]
    exception: ApprovedException | None = None
    problem: str = ""

    def newest(self, status: str | None = None) -> Night | None:
        """The newest nightly run, or the newest with this status."""
        return next((night for night in self.nights if status in {None, night.status}), None)
