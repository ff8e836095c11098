import numpy as np

from model_code.benchmark import ceiling


def test_the_peak_is_measured_only_for_the_given_kinds(monkeypatch):
    monkeypatch.setattr(ceiling, "SIDES", (64, 128))
    monkeypatch.setattr(ceiling, "REPEATS", 3)
    found = ceiling.ceilings([("cpu", "fp32"), ("cpu", "int8"), ("cpu", "fp32"), ("cpu", "fp16")])
    assert set(found) == {"cpu fp32", "cpu int8"}
    assert all(rate > 1e6 and np.isfinite(rate) for rate in found.values())


def test_a_bfloat16_peak_is_measured_on_request(monkeypatch):
    monkeypatch.setattr(ceiling, "SIDES", (16,))
    monkeypatch.setattr(ceiling, "REPEATS", 1)
    assert ceiling.ceilings([("cpu", "bf16")])["cpu bf16"] > 0
