"""Emergencies of a serving repository, and what they forbid to a change that began before."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_code.errors import IntegrityError, PromotionError
from model_code.repository.fence import Emergency, FencedError, RouteHeldError
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, ServingRepository
from model_code.settings import MODEL_NAME
from tests.support.serving import APPROVAL, staged

ONE = Route(champion=Target(model=MODEL_NAME, version=1))
JOURNAL = Journal(
    kind="promote", version=1, route=Route(), versions=(), champion=None, previous=None,
    flow_run_id="f",
)  # fmt: skip


def begin(place: ServingRepository, version: int = 1) -> Emergency:
    return place.fence.begin(version, 2, None, "ada", "wrong answers", ("f",))


def test_an_emergency_forbids_every_write_of_an_earlier_change(tmp_path: Path) -> None:
    place = ServingRepository(tmp_path / "serving")
    place.publish(staged(tmp_path / "staging", 1), APPROVAL)
    place.turn(ONE)
    earlier = ServingRepository(place.root, place.fence.newest())
    earlier.turn(ONE)  # nothing took over yet
    begin(place)
    candidate = staged(tmp_path / "staging", 2)
    writes: list[Callable[[], object]] = [
        lambda: earlier.turn(Route()),
        lambda: earlier.arrange((1,)),
        lambda: earlier.open_journal(JOURNAL),
        earlier.close_journal,
        lambda: earlier.publish(candidate, APPROVAL),
        lambda: earlier.withdraw(1),
        earlier.fence.require,
    ]
    for write in writes:
        with pytest.raises(FencedError, match=r"to version 1 took over .* \(by ada: wrong"):
            write()
    assert place.route() == ONE
    assert (place.known(), place.versions(), place.journal()) == ((1,), (), None)
    later = ServingRepository(place.root, place.fence.newest())
    later.arrange((1,))
    later.turn(Route())
    assert place.route() == Route()


def test_a_second_emergency_fences_off_the_first(tmp_path: Path) -> None:
    place = ServingRepository(tmp_path / "serving")
    first = ServingRepository(place.root, begin(place).number)
    first.turn(ONE)
    assert begin(place, 3).number == 2
    with pytest.raises(FencedError, match="to version 3 took over"):
        first.turn(Route())


def test_it_is_not_level_until_it_says_so(tmp_path: Path) -> None:
    fence = ServingRepository(tmp_path / "serving").fence
    assert fence.not_level() == ()
    fence.require_level()
    found = begin(ServingRepository(tmp_path / "serving"))
    with pytest.raises(PromotionError, match="was interrupted") as caught:
        fence.require_level()
    assert "tickline rollback --emergency --to 1" in caught.value.remedy
    fence.save(found.model_copy(update={"state": "serving"}))
    with pytest.raises(PromotionError, match="is not in MLflow, Prefect") as caught:
        fence.require_level()
    assert caught.value.remedy.startswith("tickline reconcile")
    begin(ServingRepository(tmp_path / "serving"))
    fence.save(fence.read(2).model_copy(update={"state": "failed"}))
    assert [one.number for one in fence.not_level()] == [1], "a failed one changed nothing"
    fence.save(found.model_copy(update={"state": "level"}))
    fence.require_level()


def test_a_malformed_record_still_counts(tmp_path: Path) -> None:
    place = ServingRepository(tmp_path / "serving")
    earlier = ServingRepository(place.root, 0)
    begin(place)
    place.fence.file(1).write_text("half of")
    assert place.fence.newest() == 1
    with pytest.raises(IntegrityError, match="record of an emergency rollback is malformed"):
        earlier.turn(ONE)
    assert not place.route_file.exists()


def test_a_held_route_is_reported(tmp_path: Path) -> None:
    place = ServingRepository(tmp_path / "serving")
    place.state.mkdir(parents=True)
    code = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place.state / "route.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(RouteHeldError, match="held the lock of the route for 0 s"),
            place.fence.writing(wait_s=0),
        ):
            pass
        assert holder.stdin is not None
        holder.stdin.close()
    with place.fence.writing(wait_s=30):
        pass
