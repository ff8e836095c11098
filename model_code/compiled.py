"""Functions that Numba compiles, kept on disk for the next process where a folder allows it."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, or load it if an earlier process compiled it.

    Numba keeps it beside its source, else in the user's cache folder, or in NUMBA_CACHE_DIR. If it
    can write to none of them, each process compiles it anew.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # Numba found no folder
        return njit(function)
