import pytest

from model_code.errors import PromotionError
from model_code.settings import Settings
from tasks.promotion.open_promotion import take_over


def test_a_promotion_suspended_by_an_earlier_version_is_refused() -> None:
    stored = {"version": 1, "mlflow_run_id": "m"}
    with pytest.raises(PromotionError, match="earlier version of Tickline"):
        take_over(Settings(), stored)  # type: ignore[arg-type]
