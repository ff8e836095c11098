import numpy as np
import pytest

from model_code.benchmark.regression import compare
from model_code.errors import DataError

LABEL = np.array([0, 1, 0, 1])
FP32 = np.array([0.1, 0.9, 0.4, 0.6])


def test_the_reference_against_itself():
    found = compare(LABEL, FP32, FP32)
    assert (found.accuracy, found.auc) == (1.0, 1.0)
    assert (found.flips, found.max_abs_dp, found.p99_abs_dp, found.non_finite) == (0, 0.0, 0.0, 0)
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.9, 0.9, 0.6, 0.6])))


def test_a_flip_and_its_size_are_found():
    found = compare(LABEL, np.array([0.1, 0.9, 0.55, 0.6]), FP32)
    assert (found.flips, found.flip_fraction) == (1, 0.25)
    assert found.accuracy == 0.75
    assert found.max_abs_dp == pytest.approx(0.15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_prediction_counts_as_a_flip_and_gives_no_quality(bad):
    found = compare(LABEL, np.array([0.1, bad, 0.4, 0.6]), FP32)
    assert (found.non_finite, found.flips) == (1, 1)
    assert found.accuracy is found.auc is found.log_loss is found.max_abs_dp is None


def test_one_class_only_is_a_clear_error():
    with pytest.raises(DataError, match="AUC is undefined"):
        compare(np.zeros(4, int), FP32, FP32)
