"""The market store of a run: its stages read one store, opened and listed once in each process.

Listing a large store takes seconds, and a run reads each of its instrument-days. A later run lists
the store again: its files may be others.
"""

from model_code.market.store import MarketStore, open_market

_newest: tuple[MarketStore, str | None] | None = None  # of which run; None: of any


def share(store: MarketStore) -> None:
    """Let later stages of this process read the store, whichever run they are of."""
    global _newest  # noqa: PLW0603
    _newest = store, None


def opened(uri: str, run: str) -> MarketStore:
    """The store that an earlier stage of the run, or `share`, has opened; otherwise open it.

    Args:
        uri: of the store.
        run: id of the flow run.

    Raises:
        MarketError: it cannot be opened.
    """
    global _newest  # noqa: PLW0603
    if _newest is not None and _newest[0].uri == uri and _newest[1] in (None, run):
        return _newest[0]
    _newest = open_market(uri), run
    return _newest[0]
