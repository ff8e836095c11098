"""Names of flow runs, and what commands take for them."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Scheduled

from flows.runs.find import find_run
from model_code.errors import ConfigError
from model_code.settings import Settings
from tasks.runs.lock import BusyError
from tasks.runs.names import (
    DATE,
    backfill_of,
    is_called,
    next_command,
    reference,
    rename,
    short_id,
    start_name,
    timed_name,
    title,
)


def run_of(name: str, **changes: object) -> FlowRun:
    """A flow run that no server knows."""
    return FlowRun(flow_id=uuid4(), name=name, **changes)


def test_a_run_is_renamed_once_it_is_known_what_it_is_for(home: Settings) -> None:
    seen: list[str] = []

    @flow(name="nightly", flow_run_name=start_name)
    def nightly(date: str) -> None:
        seen.append(str(flow_run.name))
        rename(f"nightly {date}")
        seen.append(str(flow_run.name))

    nightly("1999-02-03")
    assert seen[0].startswith(f"nightly started {datetime.now(UTC):%Y}-")
    assert seen[1] == "nightly 1999-02-03"
    found = find_run("nightly 1999-02-03")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(found.id, Scheduled(), force=True)
        found = client.read_flow_run(found.id)
    run_flow(nightly, flow_run=found, parameters={"date": "1999-02-04"})
    assert seen[2:] == ["nightly 1999-02-03", "nightly 1999-02-04"]  # a rerun begins with its name


def test_a_run_of_every_few_minutes_has_its_time_as_name(home: Settings) -> None:
    @flow(name="promotions-due", flow_run_name=timed_name)
    def due() -> str:
        return str(flow_run.name)

    assert due().startswith(f"promotions-due {datetime.now(UTC):%Y}-")


def test_of_runs_with_one_name_the_newest_is_taken_and_a_prefix_of_the_id_names_any(
    home: Settings,
) -> None:
    ids: list[str] = []

    @flow(name="nightly", flow_run_name="nightly 1998-01-01")
    def nightly() -> None:
        ids.append(str(flow_run.id))

    nightly()
    assert reference(find_run("nightly 1998-01-01")) == "nightly 1998-01-01"
    nightly()
    said: list[str] = []
    found = find_run("nightly 1998-01-01", say=said.append)
    assert str(found.id) == ids[1]
    (line,) = said
    assert line == (
        "2 runs are called nightly 1998-01-01; this is the newest, "
        f"{ids[1][:8]}. The others: {ids[0][:8]}"
    )
    assert reference(found) == short_id(found) == ids[1][:8]
    for given in (ids[0], ids[0][:8], ids[0][:12]):
        assert str(find_run(given, say=said.append).id) == ids[0]
    assert len(said) == 1
    with pytest.raises(ConfigError, match="no run named"):
        find_run(ids[0][:7])


def test_what_names_a_run() -> None:
    run = run_of("promote v7")
    assert is_called(run, "promote v7")
    assert is_called(run, str(run.id))
    assert is_called(run, str(run.id)[:8])
    assert not is_called(run, str(run.id)[:7])
    assert not is_called(run, "promote")


def test_a_name_that_begins_with_its_flow_is_its_title() -> None:
    assert title("nightly", "nightly 2024-08-09") == "nightly 2024-08-09"
    assert title("backfill night", "2024-08-09") == "backfill night 2024-08-09"


@pytest.mark.parametrize(
    ("flow_name", "parameters", "kind", "command"),
    [
        ("promote", {"version": 7}, "ServingError", "tickline promote --version 7"),
        ("rollback", {}, "", "tickline rollback"),
        ("rollback", {"to": 6}, "", "tickline rollback --to 6"),
        ("tune", {}, "DataError", "tickline tune, with the same arguments"),
        ("nightly", {}, BusyError.__name__, None),
        ("nightly", {}, "ConfigError",
         "tickline nightly, corrected: a rerun asks for the same again"),
        ("promotions-due", {}, "", None),
    ],
)  # fmt: skip
def test_what_continues_a_run(
    flow_name: str, parameters: dict[str, object], kind: str, command: str | None
) -> None:
    run = run_of("a run of this test", parameters=parameters)
    assert next_command(flow_name, run, kind) == command


def test_a_date_of_a_backfill_is_continued_by_the_whole_backfill(home: Settings) -> None:
    own = str(uuid4())
    night = run_of("2024-08-09", tags=["backfill 2024-08-08 to 2024-08-09", own])
    assert backfill_of(night) == own[:8]
    assert next_command(DATE, night) == f"tickline rerun {own[:8]}"
    assert backfill_of(run_of("2024-08-09", tags=["calm-otter"])) == "calm-otter"
