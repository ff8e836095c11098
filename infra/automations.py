"""Alerts: Prefect automations that call a webhook if a nightly run or another flow fails.

They run in the Prefect server, so they also detect a dead worker or a killed process.
"""

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any
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

from model_code.errors import ConfigError

BLOCK = "tickline-alerts"
PREFIX = "tickline: "
SHORTEST = dt.timedelta(seconds=10)  # Prefect takes 0 for 10 s and refuses what is between
FLOW = "nightly"
OTHERS = ("promote", "rollback", "backfill")  # alerts on failure only
FAILED = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
ENDED = FAILED | {f"prefect.flow-run.{state}" for state in ("Completed", "Cancelled", "Skipped")}

# rendered by the server; tojson escapes quotes in names
PAYLOAD = """{
  "alert": "%(name)s",
  "text": {{ (flow.name ~ " " ~ flow_run.name ~ ": %(name)s") | tojson }},
  "flow_run": {{ flow_run.name | tojson }},
  "flow_run_id": {{ flow_run.id | string | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "do": {{ (%(remedy)s) | tojson }}
}"""


def install_alerts(
    webhook: str,
    *,
    stuck_after: dt.timedelta,
    deadline: dt.time,
    flow: str = FLOW,
    others: Sequence[str] = OTHERS,
) -> list[str]:
    """Create or replace the alerts and return their names.

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
    if not webhook.startswith(("http://", "https://")):
        raise ConfigError("the webhook must be an http or https URL")  # its value may be secret
    if stuck_after < SHORTEST:
        raise ConfigError(
            f"alert on stuck runs after {stuck_after}: too short",
            remedy=f"Prefect's minimum is {SHORTEST.seconds} s",
        )
    within = time_to_deadline(_schedule(f"{flow}/{flow}"), deadline)
    json_headers = SecretDict({"content-type": "application/json"})
    block = Webhook(method="POST", url=SecretStr(webhook), headers=json_headers)
    block_id = block.save(BLOCK, overwrite=True)
    remove_automations()
    names = []
    for name, remedy, trigger in triggers(flow, others, stuck_after=stuck_after, within=within):
        payload = PAYLOAD % {"name": name, "remedy": remedy}
        automation = Automation(
            name=f"{PREFIX}{name}",
            description=f"Calls the webhook of block {BLOCK}.",
            trigger=trigger,
            actions=[CallWebhook(block_document_id=block_id, payload=payload)],
        )
        automation.create()
        names.append(automation.name)
    return names


def triggers(
    flow: str, others: Sequence[str], *, stuck_after: dt.timedelta, within: dt.timedelta
) -> list[tuple[str, str, EventTrigger]]:
    """Each alert's name, remedy (a Jinja expression) and trigger."""
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
            "deadline missed",
            f'"the serving model is unchanged; if the run failed: " ~ {rerun}',
            EventTrigger(
                # a run that never starts stays Late
                after={"prefect.flow-run.Pending", "prefect.flow-run.Late"},
                expect=ENDED - FAILED,
                posture=Posture.Proactive,
                within=within,
                **(each_run | {"match_related": [of_flow, scheduled]}),
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
    end = dt.datetime.combine(start.date(), deadline, zone)
    if end <= start:
        end += dt.timedelta(days=1)
    # wall-clock difference: a change to daylight saving time does not shorten the time to finish
    return end.replace(tzinfo=None) - start.replace(tzinfo=None)


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
