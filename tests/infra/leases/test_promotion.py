"""One owner of a promotion among the hosts of an installation."""

from pathlib import Path

import pytest

from infra.leases.lease import require_held
from infra.leases.promotion import own_promotion
from model_code.repository.lease import PromotionRunningError, owners
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from tests.support.leases import held_elsewhere


def test_a_promotion_of_another_host_is_refused_by_name(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.leases.promotion.WAIT_S", 0.0)
    here = home.resolved(store=f"file://{tmp_path / 'store'}")
    code = "own_promotion(Settings().resolved(), 3, 'brave-fox', 'run-3')"
    with held_elsewhere(here, tmp_path / "other", code) as other:
        match = rf"promotion of version 3 is running \(lease held by pid {other.pid} on .*brave-fox"
        with pytest.raises(PromotionRunningError, match=match), own_promotion(here, 3):
            pass
        assert owners(ServingRepository(here.serving_repository).state) == ()
        with own_promotion(here, 4):
            require_held()
    with own_promotion(here, 3), own_promotion(here, 3, "brave-fox", "run-3"):
        require_held()
