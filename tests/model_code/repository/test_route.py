import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from model_code.errors import IntegrityError, PromotionError
from model_code.repository.route import Route, Router, Target

OLD, NEW = Target(model="m", version=1), Target(model="m_candidate", version=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "route.json"


def test_a_missing_file_is_empty_and_a_saved_route_is_read(path: Path) -> None:
    assert Route.load(path) == Route()
    route = Route(champion=OLD, candidate=NEW, share=0.25)
    route.save(path)
    assert Route.load(path) == route
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_broken_route_file_is_reported(path: Path) -> None:
    Route(champion=OLD).save(path)
    path.write_text('{"champion": 3}')
    with pytest.raises(IntegrityError, match="route file is malformed"):
        Route.load(path)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_a_fraction(share: float) -> None:
    with pytest.raises(ValidationError):
        Route(champion=OLD, candidate=NEW, share=share)


def test_no_version_serves_before_the_first_promotion(path: Path) -> None:
    with pytest.raises(PromotionError, match="no version serves yet"):
        Router(path).pick()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_candidate_gets_its_share_evenly_spread(path: Path, share: float) -> None:
    Route(champion=OLD, candidate=NEW, share=share).save(path)
    router = Router(path)
    picked = [router.pick() == NEW for _ in range(1000)]
    assert sum(picked) == pytest.approx(1000 * share, abs=3)
    assert all(sum(picked[i : i + 100]) == pytest.approx(100 * share, abs=3) for i in (0, 300, 900))


def test_a_change_is_seen_after_the_refresh_or_at_once_on_request(path: Path) -> None:
    Route(champion=OLD).save(path)
    router = Router(path, refresh_s=3600)
    assert router.pick() == OLD
    Route(champion=NEW).save(path)
    assert router.pick() == OLD
    assert router.pick(now=True) == NEW
    quick = Router(path, refresh_s=0.0)
    assert quick.pick() == NEW
    time.sleep(0.01)
    Route(champion=OLD).save(path)
    assert quick.pick() == OLD


def test_an_expired_share_goes_back_to_the_champion(path: Path) -> None:
    watched = Route(champion=OLD, candidate=NEW, share=1.0, until=time.time() + 60)
    watched.save(path)
    assert Route.load(path) == watched
    assert Router(path).pick() == NEW
    Route(champion=OLD, candidate=NEW, share=1.0, until=time.time() - 0.01).save(path)
    router = Router(path)
    assert [router.pick() for _ in range(20)] == [OLD] * 20


def test_a_route_without_a_canary_has_no_fields_unknown_to_earlier_clients(path: Path) -> None:
    Route(champion=OLD).save(path)
    assert "until" not in path.read_text()
