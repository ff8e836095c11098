"""Rows in time order: which rows of a stream do their neighbours contradict?

Shapes: N rows.
"""

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled

Stamps = npt.NDArray[np.int64]


def in_order(time_ns_N: Stamps) -> npt.NDArray[np.bool_]:
    """True on the rows of a longest sequence whose time never goes back, (N,).

    The other rows are the fewest that must go. One stamp 30 s ahead of its neighbours is one such
    row; the rows after it are not. Source: Fredman 1975, "On computing the length of longest
    increasing subsequences" (patience sorting, O(N log N)).
    """
    if len(time_ns_N) < 2 or bool((np.diff(time_ns_N) >= 0).all()):
        return np.ones(len(time_ns_N), np.bool_)
    kept: npt.NDArray[np.bool_] = _longest(np.ascontiguousarray(time_ns_N, np.int64))
    return kept


@compiled
def _longest(time_N):  # type: ignore[no-untyped-def]
    n = len(time_N)
    last = np.empty(n, np.int64)  # last[k]: row that ends the best sequence of k + 1 rows
    before = np.empty(n, np.int64)
    length = 0
    for i in range(n):
        low, high = 0, length
        while low < high:
            middle = (low + high) // 2
            if time_N[last[middle]] <= time_N[i]:
                low = middle + 1
            else:
                high = middle
        before[i] = last[low - 1] if low else -1
        last[low] = i
        length = max(length, low + 1)
    kept = np.zeros(n, np.bool_)
    row = last[length - 1]
    while row >= 0:
        kept[row] = True
        row = before[row]
    return kept


def count_before(sorted_M: Stamps, time_N: Stamps) -> Stamps:
    """How many of the sorted stamps are strictly before each time, (N,)."""
    if len(time_N) > 1 and bool((np.diff(time_N) < 0).any()):
        return np.searchsorted(sorted_M, time_N, side="left")
    found: Stamps = _merge(sorted_M, time_N)
    return found


@compiled
def _merge(sorted_M, time_N):  # type: ignore[no-untyped-def]
    found = np.empty(len(time_N), np.int64)
    k = 0
    for i in range(len(time_N)):
        while k < len(sorted_M) and sorted_M[k] < time_N[i]:
            k += 1
        found[i] = k
    return found


def outside_neighbours_ns(time_ns_N: Stamps, kept_N: npt.NDArray[np.bool_]) -> Stamps:
    """How far each row lies outside the kept rows around it, (N,) in ns; 0 on kept rows."""
    found = np.zeros(len(time_ns_N), np.int64)
    places = np.flatnonzero(kept_N)
    odd = np.flatnonzero(~kept_N)
    if not len(odd):
        return found
    after = np.searchsorted(places, odd)
    previous = time_ns_N[places[np.maximum(after - 1, 0)]]
    following = time_ns_N[places[np.minimum(after, len(places) - 1)]]
    late = np.where(after > 0, previous - time_ns_N[odd], 0)
    early = np.where(after < len(places), time_ns_N[odd] - following, 0)
    found[odd] = np.maximum(late, early)
    return found
