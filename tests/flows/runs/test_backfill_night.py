"""The process of one past date: its order, its result, its exit status."""

from pathlib import Path

import pytest

from flows.runs import backfill_night
from flows.runs.backfill_night import BackfillNight, BackfillOrder, main
from model_code.errors import DataError
from model_code.settings import NightlySpec, Settings

DATE = "2024-08-09"
TAGS = ("backfill 2024-08-06 to 2024-08-08", "b7235c12-2e7d-40fb-8255-e179830bb6da")


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: object
) -> tuple[int, BackfillNight]:
    """Exit status and written result, where the date's nightly ends like this."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))

    def night(order: BackfillOrder, settings: Settings) -> BackfillNight:
        assert (order.tags, order.spec.test_date) == (TAGS, DATE)
        assert settings.home == (tmp_path / "home").resolve()
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, BackfillNight)
        return result

    monkeypatch.setattr(backfill_night, "run_night", night)
    order, written = tmp_path / "order.json", tmp_path / "result.json"
    spec = NightlySpec(test_date=DATE)
    order.write_text(BackfillOrder(spec=spec, tags=TAGS).model_dump_json())
    status = main(str(order), str(written))
    return status, BackfillNight.model_validate_json(written.read_bytes())


def test_a_verdict_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = BackfillNight(date=DATE, verdict="pass", engine="openvino-fp32", auc=0.7)
    assert run(tmp_path, monkeypatch, judged) == (0, judged)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            DataError("A 2024-08-09 failed validation\nmore", where="x"),
            "A 2024-08-09 failed validation",
        ),
        (RuntimeError("out of luck"), "RuntimeError: out of luck"),
    ],
)
def test_a_failure_is_one_line_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, failure: str
) -> None:
    assert run(tmp_path, monkeypatch, error) == (1, BackfillNight(date=DATE, failure=failure))
