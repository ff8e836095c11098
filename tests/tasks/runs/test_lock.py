"""The lock of nights, in a home and among homes that share a store."""

from pathlib import Path

import pytest

from infra.leases.lease import require_held
from model_code.settings import Settings
from tasks.runs.lock import BusyError, LockOwner, hold_lock, read_owner, require_idle
from tests.support.leases import held_elsewhere


def test_one_at_a_time_in_a_home(home: Settings) -> None:
    require_idle(home)
    with hold_lock(home):
        with pytest.raises(BusyError, match="a nightly is already running"):
            require_idle(home)
        with pytest.raises(BusyError, match="another nightly is running"), hold_lock(home):
            pass
    require_idle(home)


def test_one_at_a_time_among_homes_that_share_a_store(home: Settings, tmp_path: Path) -> None:
    here = home.resolved(store=f"file://{tmp_path / 'store'}")
    assert read_owner(here) is None
    with held_elsewhere(here, tmp_path / "other", "hold_lock(Settings().resolved())") as other:
        owner = read_owner(here)
        assert owner is not None
        assert owner.process.pid == other.pid
        assert not owner.has_ended
        held = rf"\(lease held by pid {other.pid} on "
        with pytest.raises(BusyError, match=f"another nightly is running {held}"), hold_lock(here):
            pass
        with pytest.raises(BusyError, match=f"a nightly is already running {held}"):
            require_idle(here)
    owner = read_owner(here)
    assert owner is not None
    assert owner.has_ended, "it was killed"
    with hold_lock(here):
        require_held()
    require_idle(here)


def test_an_owner_of_another_host_has_ended_with_its_lease(home: Settings) -> None:
    from infra.process import ProcessId

    far = ProcessId.own().model_copy(update={"host": "elsewhere"})
    assert LockOwner(process=far, flow_run_id="1", until=1.0).has_ended
    assert not LockOwner(process=far, flow_run_id="1", until=9e9).has_ended
    assert not LockOwner(process=far, flow_run_id="1").has_ended
