"""Tests of a rate that stay valid however often they are looked at.

A fixed test that is repeated after each request rejects a good candidate sooner or later. These
tests measure evidence by a likelihood ratio, averaged over every rate on the other side of the
limit. While the limit holds its expectation never exceeds 1, so it reaches 1 / alpha at any time
with probability alpha at most (Ville's inequality). The rate may change from request to request, as
long as each request keeps the limit given those before.

Sources: Robbins (1970), "Statistical methods related to the law of the iterated logarithm"; Howard,
Ramdas, McAuliffe and Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence
sequences"; Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by
betting". A limit on a quantile is a limit on a rate: Howard and Ramdas (2022), "Sequential
estimation of quantiles with applications to A/B testing and best-arm identification".
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaln, xlog1py, xlogy

Finding = Literal["violated", "met", "open"]
HALVINGS = 40


def log_evidence_above(hits: ArrayLike, trials: ArrayLike, limit: float) -> NDArray[np.float64]:
    """Evidence that the rate of hits is above the limit, elementwise.

    Args:
        hits: of the trials.
        trials: so far.
        limit: 0 to 1.

    Returns:
        The natural logarithm of the likelihood ratio; infinite if the limit makes a hit impossible.
    """
    hits, trials = np.asarray(hits), np.asarray(trials)
    if limit >= 1.0:
        return np.full(np.broadcast(hits, trials).shape, -np.inf)
    misses = trials - hits
    with np.errstate(divide="ignore"):  # no rate above the limit explains the counts: no evidence
        above = betaln(hits + 1, misses + 1) + np.log(betaincc(hits + 1, misses + 1, limit))
    below = xlogy(hits, limit) + xlog1py(misses, -limit)
    return np.asarray(above - np.log1p(-limit) - below)


def log_evidence_below(hits: ArrayLike, trials: ArrayLike, limit: float) -> NDArray[np.float64]:
    """Evidence that the rate of hits is below the limit, as `log_evidence_above`."""
    return log_evidence_above(np.asarray(trials) - np.asarray(hits), trials, 1.0 - limit)


def judge(hits: int, trials: int, limit: float, alpha: float) -> Finding:
    """Judge a rate against its limit; valid at every look.

    Args:
        hits: of the trials.
        trials: so far.
        limit: largest rate that is allowed, 0 to 1.
        alpha: probability that a rate within its limit is ever found to violate it.

    Returns:
        "violated" if the rate is shown to be above the limit, "met" if it is shown to be at most
        the limit, else "open".
    """
    enough = -np.log(alpha)
    if log_evidence_above(hits, trials, limit) >= enough:
        return "violated"
    if limit >= 1.0 or log_evidence_below(hits, trials, limit) >= enough:
        return "met"
    return "open"


def bounds(hits: int, trials: int, alpha: float) -> tuple[float, float]:
    """Bounds of the rate; each is valid at every look with probability 1 - alpha."""
    return _lower(hits, trials, alpha), 1.0 - _lower(trials - hits, trials, alpha)


def _lower(hits: int, trials: int, alpha: float) -> float:
    """The largest limit that the counts violate."""
    if hits == 0:
        return 0.0
    enough, low, high = -np.log(alpha), 0.0, hits / trials
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if log_evidence_above(hits, trials, middle) >= enough:
            low = middle
        else:
            high = middle
    return low
