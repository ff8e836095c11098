"""Alerts: Prefect automations that call a webhook if a nightly run or another flow fails.

They run in the Prefect server, so they also detect a dead worker, a killed process, and that there
was no nightly at all. That the server itself is down is for Prometheus (infra/prometheus).
"""

import asyncio
import datetime as dt
import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from prefect import get_client
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from infra.servers import require_webhook
from model_code.artifacts import hash_bytes
from model_code.errors import ConfigError
from model_code.market import calendar

BLOCK = "tickline-alerts"
PREFIX = "tickline: "
SHORTEST = dt.timedelta(seconds=10)  # Prefect takes 0 for 10 s and refuses what is between
GAPS = 31  # of a schedule, to find the longest
FLOW = "nightly"
OTHERS = ("promote", "rollback", "backfill")  # alerts on failure only
FAILED = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
CANCELLED = "prefect.flow-run.Cancelled"
DONE = {"prefect.flow-run.Completed", "prefect.flow-run.Skipped"}
ENDED = FAILED | DONE | {CANCELLED}

# rendered by the server; tojson escapes quotes in names
PAYLOAD = """{
  "alert": "%(name)s",
  "text": {{ ((flow_run.name if flow_run.name.startswith(flow.name)
    else flow.name ~ " " ~ flow_run.name) ~ ": %(name)s") | tojson }},
  "flow_run": {{ flow_run.name | tojson }},
  "flow_run_id": {{ flow_run.id | string | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ (flow_run.state.message or "") | tojson }},
  "url": {{ (flow_run | ui_url or "") | tojson }},
  "do": {{ (%(remedy)s) | tojson }}
}"""
NO_RUN = """{
  "alert": "%(name)s",
  "text": "nightly: %(name)s",
  "do": {{ (%(remedy)s) | tojson }}
}"""

Alert = tuple[str, str, EventTrigger]


class Installed(NamedTuple):
    """Names of the alerts, and whether any had to be created or replaced."""

    names: list[str]
    changed: bool


def install_alerts(
    webhook: str,
    *,
    stuck_after: dt.timedelta,
    deadline: dt.time,
    flow: str = FLOW,
    others: Sequence[str] = OTHERS,
) -> Installed:
    """Create or replace the alerts; those that are installed already are left as they are.

    Args:
        webhook: URL to POST JSON to; stored as a secret.
        stuck_after: a run in state Running for longer is stuck; at least ten seconds.
        deadline: wall-clock time, in the deployment's zone, by which a scheduled run must end.
        flow: the flow to watch.
        others: flows with an alert on failure only.

    Raises:
        ConfigError: no URL, a time that is too short, or the nightly is not deployed on a cron
            schedule here.
    """
    require_webhook(webhook)
    if stuck_after < SHORTEST:
        raise ConfigError(
            f"alert on stuck runs after {stuck_after}: too short",
            remedy=f"Prefect's minimum is {SHORTEST.seconds} s",
        )
    schedule = _schedule(f"{flow}/{flow}")
    within = time_to_deadline(schedule, deadline)
    wanted = triggers(
        flow,
        others,
        stuck_after=stuck_after,
        within=within,
        silence=longest_gap(schedule) + within,
    )
    mark = _mark(webhook, wanted)
    with get_client(sync_client=True) as client:
        present = [found for found in client.read_automations() if found.name.startswith(PREFIX)]
    names = [f"{PREFIX}{name}" for name, _, _ in wanted]
    if sorted(found.name for found in present) == sorted(names) and all(
        mark in found.description for found in present
    ):
        return Installed(names=names, changed=False)
    json_headers = SecretDict({"content-type": "application/json"})
    block = Webhook(method="POST", url=SecretStr(webhook), headers=json_headers)
    block_id = block.save(BLOCK, overwrite=True)
    remove_automations()
    for name, remedy, trigger in wanted:
        template = PAYLOAD if trigger.for_each else NO_RUN
        automation = Automation(
            name=f"{PREFIX}{name}",
            description=f"Calls the webhook of block {BLOCK}. {mark}",
            trigger=trigger,
            actions=[
                CallWebhook(
                    block_document_id=block_id, payload=template % {"name": name, "remedy": remedy}
                )
            ],
        )
        automation.create()
    return Installed(names=names, changed=True)


def _mark(webhook: str, wanted: Sequence[Alert]) -> str:
    """Identifies the definitions and the URL, which cannot be read from it."""
    parts = [webhook, PAYLOAD, NO_RUN]
    for name, remedy, trigger in wanted:
        parts += [name, remedy, json.dumps(trigger.model_dump(mode="json"), sort_keys=True)]
    return f"[{hash_bytes(json.dumps(parts).encode())[:16]}]"


def triggers(
    flow: str,
    others: Sequence[str],
    *,
    stuck_after: dt.timedelta,
    within: dt.timedelta,
    silence: dt.timedelta,
) -> list[Alert]:
    """Each alert's name, remedy (a Jinja expression) and trigger.

    Args:
        flow: the flow to watch.
        others: flows with an alert on failure only.
        stuck_after: a run in state Running for longer is stuck.
        within: from a scheduled run's start to its deadline.
        silence: without a run that completed or was skipped for longer, there was no night.
    """
    of_flow = {"prefect.resource.role": "flow", "prefect.resource.name": flow}
    scheduled = {
        "prefect.resource.role": "tag",
        "prefect.resource.id": "prefect.tag.auto-scheduled",
    }
    each_run: dict[str, Any] = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": of_flow,
        "for_each": {"prefect.resource.id"},
    }
    of_others = of_flow | {"prefect.resource.name": list(others)}
    rerun = '"tickline rerun " ~ flow_run.name'
    return [
        ("failed", rerun, EventTrigger(expect=FAILED, posture=Posture.Reactive, **each_run)),
        (
            "other flow failed",
            '"run the same " ~ flow.name ~ " command again; see docs/runbook.md"',
            EventTrigger(
                expect=FAILED,
                posture=Posture.Reactive,
                **(each_run | {"match_related": of_others}),
            ),
        ),
        (
            "late",
            '"start a worker: tickline worker"',
            EventTrigger(expect={"prefect.flow-run.Late"}, posture=Posture.Reactive, **each_run),
        ),
        (
            "stuck",
            f'"check its stages in Prefect; kill its process, then " ~ {rerun}',
            EventTrigger(
                after={"prefect.flow-run.Running"},
                expect=ENDED,
                posture=Posture.Proactive,
                within=stuck_after,
                **each_run,
            ),
        ),
        (
            "cancelled",
            f'"a person stopped it: nothing is broken. If it was not meant: " ~ {rerun}',
            EventTrigger(expect={CANCELLED}, posture=Posture.Reactive, **each_run),
        ),
        (
            "deadline missed",
            f'"the serving model is unchanged; if the run failed: " ~ {rerun}',
            EventTrigger(
                # a run that never starts stays Late
                after={"prefect.flow-run.Pending", "prefect.flow-run.Late"},
                expect=DONE,
                posture=Posture.Proactive,
                within=within,
                **(each_run | {"match_related": [of_flow, scheduled]}),
            ),
        ),
        (
            "no night",
            '"none completed since the one before: is the schedule paused or the worker away? "'
            ' ~ "tickline status; tickline resume"',
            # a run on a day without a session ends as Skipped, so holidays raise no alarm
            EventTrigger(
                expect=DONE,
                posture=Posture.Proactive,
                within=silence,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=of_flow,
            ),
        ),
    ]


def time_of_day(text: str) -> dt.time:
    """Parse HH:MM.

    Raises:
        ConfigError: the text is not a time.
    """
    try:
        return dt.time.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"not a time of day: {text!r}", remedy="write it as HH:MM") from error


def time_to_deadline(schedule: CronSchedule, deadline: dt.time) -> dt.timedelta:
    """Time from the schedule's next start to the deadline after it."""
    from prefect.server.schemas.schedules import CronSchedule as ServerSchedule  # has get_dates

    zone = ZoneInfo(schedule.timezone or "UTC")
    known = ServerSchedule(cron=schedule.cron, timezone=schedule.timezone)
    start = asyncio.run(known.get_dates(n=1))[0].astimezone(zone)
    return calendar.time_to_deadline(start, deadline)


def longest_gap(schedule: CronSchedule) -> dt.timedelta:
    """Longest time between two starts, e.g. over a weekend."""
    from prefect.server.schemas.schedules import CronSchedule as ServerSchedule

    known = ServerSchedule(cron=schedule.cron, timezone=schedule.timezone)
    starts = asyncio.run(known.get_dates(n=GAPS + 1))
    return max(later - earlier for earlier, later in itertools.pairwise(starts))


def remove_alerts() -> int:
    """Remove the alerts and the block; return the number of alerts removed."""
    count = remove_automations()
    with get_client(sync_client=True) as client:
        try:
            block = client.read_block_document_by_name(BLOCK, "webhook")
        except ObjectNotFound:
            return count
        if block.id:
            client.delete_block_document(block.id)
    return count


def remove_automations() -> int:
    """Remove the alerts' automations; return their number."""
    with get_client(sync_client=True) as client:
        mine = [found for found in client.read_automations() if found.name.startswith(PREFIX)]
        for found in mine:
            client.delete_automation(found.id)
    return len(mine)


def _schedule(deployment: str) -> CronSchedule:
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise ConfigError(
                f"{deployment} is not deployed on this server, so it has no deadline",
                where=str(client.api_url),
                remedy="deploy it first: prefect --no-prompt deploy --all",
            ) from error
    crons = [item.schedule for item in found.schedules if isinstance(item.schedule, CronSchedule)]
    if not crons:
        raise ConfigError(f"{deployment} has no cron schedule", remedy="add one in prefect.yaml")
    return crons[0]
