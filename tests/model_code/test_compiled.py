"""A function is compiled though Numba finds no folder to keep it in."""

import numpy as np
import pytest
from numba.core.caching import CacheImpl

from model_code.compiled import compiled


def twice(values_N: np.ndarray) -> np.ndarray:
    return 2 * values_N


@pytest.mark.parametrize("kept", [True, False])
def test_it_is_compiled_with_and_without_a_folder(
    kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path_factory.mktemp("numba")))
    if not kept:
        monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    function = compiled(twice)
    assert function(np.arange(3)).tolist() == [0, 2, 4]
    assert function.signatures, "it was compiled"
