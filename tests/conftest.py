"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def binance() -> str:
    """URI of the real Binance ticks; tests that need them are skipped, by name, without."""
    if not (SHARED / "binance").is_dir():
        pytest.skip("real data: ../shared/data/binance is absent")
    return str(SHARED / "binance")


@pytest.fixture(scope="session")
def fx() -> str:
    """URI of the real FX ticks; tests that need them are skipped, by name, without."""
    if not (SHARED / "fx").is_dir():
        pytest.skip("real data: ../shared/data/fx is absent")
    return str(SHARED / "fx")
