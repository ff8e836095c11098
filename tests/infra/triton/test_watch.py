"""A check in the background."""

import threading
import time
from collections.abc import Callable

from infra.triton.watch import Watch
from model_code.errors import ServingError


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_newest_result_is_seen_without_waiting() -> None:
    faults: list[Exception] = [ServingError("dead", remedy="load it"), KeyError("k"), OSError("x")]

    def check() -> None:
        if faults:
            raise faults.pop(0)

    watch: Watch = Watch(check)
    seen: list[str] = []
    assert watch.problem() is None, "nothing is known before the first check has ended"

    def look() -> bool:
        found = watch.problem()
        if found is not None and (not seen or seen[-1] != found):
            seen.append(found)
        return found == ""

    until(look)
    assert seen == ["dead; load it", "KeyError: 'k'", "OSError: x", ""]


def test_a_check_that_hangs_blocks_nobody_and_is_forgotten() -> None:
    go, begun = threading.Event(), 0

    def check() -> None:
        nonlocal begun
        begun += 1
        go.wait(30)
        raise ServingError("of the server before")

    watch = Watch(check)
    assert watch.problem() is None
    assert watch.problem() is None
    assert begun == 1, "one check at a time"
    watch.reset()  # another server has been started
    assert watch.problem() is None
    until(lambda: begun == 2)
    go.set()
    until(lambda: watch.problem() == "of the server before")
