import shutil

import numpy as np
import pytest
import torch

from model_code.engines import torch_compile
from model_code.engines.cache import cache_folder
from model_code.engines.torch_compile import BATCHES, TorchCompiled
from model_code.errors import EngineError

ENGINE = TorchCompiled()


@pytest.mark.skipif(ENGINE.availability() is not None, reason=str(ENGINE.availability()))
@pytest.mark.slow
def test_every_batch_is_predicted_without_recompilation(source, x_BTF, expected_BC, monkeypatch):
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch_compile, "BATCHES", (1, 8, 64))  # each takes 10 s to compile
    predictor = ENGINE._open(source.model, 2)
    compiled = counters["stats"]["unique_graphs"]
    for batch in (1, 3, 8):
        np.testing.assert_allclose(predictor.predict(x_BTF[:batch]), expected_BC[:batch], atol=1e-5)
    many_BTF = np.tile(x_BTF, (9, 1, 1))
    np.testing.assert_allclose(predictor.predict(many_BTF), np.tile(expected_BC, (9, 1)), atol=1e-5)
    assert counters["stats"]["unique_graphs"] == compiled
    assert torch.backends.mha.get_fastpath_enabled()
    assert any(cache_folder("torch-compile").iterdir())
    with pytest.raises(EngineError, match="windows"):
        predictor.predict(x_BTF[0])
    with pytest.raises(EngineError, match="NaN or infinity"):
        predictor.predict(np.full_like(x_BTF, np.nan))


def test_a_missing_compiler_is_reported(monkeypatch):
    if ENGINE.device == "cuda":
        pytest.skip("a GPU needs Triton instead")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert "no C++ compiler" in str(ENGINE.availability())


def test_a_compiler_that_fails_is_a_clear_error(source, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("fatal error: cannot execute cc1plus\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(EngineError, match=r"torch.compile failed: fatal error: cannot execute"):
        ENGINE._open(source.model, 1)


def test_the_batches_are_those_of_the_benchmark():
    assert BATCHES == (1, 8, 16, 32, 64)
