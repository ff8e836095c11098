"""A promotion and a rollback on two targets through the flow, the second one away at first."""

import json

import pytest

from flows.runs import promotions
from infra.servers import HOST, free_port
from infra.triton.server import TritonServer
from model_code.errors import ConfigError
from model_code.repository.audit import AuditLog
from model_code.serving.servers import QuorumError
from model_code.settings import Settings
from tasks.promotion.records import Promoted
from tasks.promotion.targets import reconcile_targets
from tasks.runs.aliases import Aliases
from tests.support.desk import approve, evidence, start
from tests.support.policy import write_policy
from tests.support.promotion import PATIENT


def test_the_quorum_decides_and_the_laggard_is_recorded_and_brought_level(
    desk: Settings,
    second_triton: TritonServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def targets(west: str, quorum: int | None = None) -> Settings:
        found = {
            "east": desk.triton_url,
            "west": {"url": west, "repository": str(second_triton.repository)},
        }
        monkeypatch.setenv("TICKLINE_TARGETS", json.dumps(found))
        settings = Settings().resolved()
        write_policy(settings, triton_url=None, targets=found, quorum=quorum)
        return settings

    monkeypatch.delenv("TICKLINE_TRITON_URL")
    away = f"{HOST}:{free_port()}"
    settings = targets(away)
    start(settings, 1)
    with pytest.raises(QuorumError, match="1 of 2 targets are ready, the quorum is 2"):
        approve(settings, 1)
    assert Aliases(settings).aliases() == (None, None)
    assert "once 2 of 2 have it" in evidence(settings, 1)
    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_QUORUM", "1")
        with pytest.raises(ConfigError, match="TICKLINE_QUORUM is 1, the policy says targets east"):
            promotions.start(Settings().resolved(), 1, "bob", PATIENT)
    settings = targets(away, quorum=1)  # another policy: the approval under the first one is void
    assert not isinstance(promotions.start(settings, 1, "bob", PATIENT), Promoted)
    outcome = approve(settings, 1)
    assert outcome.outcome == "promoted"
    assert set(outcome.behind) == {"west"}
    record = AuditLog(settings.audit_file).read()[-1]
    assert record.event == "promoted"
    assert (record.facts["targets"], record.facts["quorum"]) == (["east"], 1)
    assert Aliases(settings).tags(1)["behind"] == "west"

    settings = targets(second_triton.grpc_url)
    assert all(one.level for one in reconcile_targets(settings, "ada"))
    with second_triton.client() as client:
        assert client.versions() == [1]
    back = promotions.roll_back(settings, 1, "ada", "try")
    assert back.behind == {}
