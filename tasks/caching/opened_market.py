"""The market store of a run: its stages read the store that `find days` has opened and listed.

Listing a large store takes seconds, and a run reads each of its instrument-days.
"""

from model_code.market.store import MarketStore, open_market

_newest: MarketStore | None = None


def share(store: MarketStore) -> None:
    """Let later stages of this process read the store."""
    global _newest  # noqa: PLW0603
    _newest = store


def opened(uri: str) -> MarketStore:
    """The shared store if it is of this URI; otherwise open one.

    Raises:
        MarketError: it cannot be opened.
    """
    if _newest is not None and _newest.uri == uri:
        return _newest
    return open_market(uri)
