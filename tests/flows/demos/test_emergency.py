"""The emergency of the promotion demo, on tiny versions."""

import pytest

from flows.demos.emergency import emergency
from flows.demos.promotion import make_key
from model_code.settings import Settings
from tasks.runs.aliases import Aliases
from tests.support.desk import approve, champion, events, start
from tests.support.policy import write_policy


def test_the_demo_takes_over_from_a_live_promotion(
    desk: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    signers = "".join(f"{name} {make_key(desk, name)}" for name in ("ada", "grace"))
    write_policy(desk, allowed_signers=signers)
    start(desk, 1)
    approve(desk, 1)
    start(desk, 2)
    said: list[str] = []
    emergency(desk, 2, said.append)
    assert "version 1 is serving (before: 2)" in capfd.readouterr().out
    assert any("an emergency rollback to version 1 took over" in line for line in said)
    assert said[-1].startswith("level: version 1 serves")
    assert champion(desk) == 1
    assert Aliases(desk).aliases() == (1, None)
    assert events(desk)[-2:] == ["rolled back", "stopped"]
