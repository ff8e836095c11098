"""Which decisions are sampled: by a hash of what identifies them.

Every decision has the same chance, whatever its probability, symbol or time, so that shares, AUC
and PSI of a sample estimate those of all decisions without weights. The same decision is always
chosen or never, after a restart and in every process, and a sample of a lower rate is part of one
of a higher rate.
"""

from hashlib import blake2b

SCALE = 2.0**-64


def draw(symbol: str, session: int, sequence: int) -> float:
    """A decision's number in [0, 1), uniform; it is sampled if this is below the rate."""
    key = f"{symbol}\0{session}\0{sequence}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") * SCALE
