"""Find near-duplicate pictures by a hash.

The hash is a difference hash (Krawetz, "Kind of Like That", 2013) of 256 bits. The picture is reduced to 17 x 16
pixels. The bit of a pixel is set if the pixel is clearly darker than its right neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

SIDE = 16
CLEARLY = 3  # grey levels; smaller differences may be noise on a plain background
CHUNK = 2048
# Bits are shuffled, so that each band of bytes has bits from the whole picture. Otherwise plain backgrounds would put
# all pictures into one bucket.
ORDER = np.random.default_rng(0).permutation(SIDE * SIDE)


def difference_hash(image: Image.Image) -> np.ndarray:
    """Return a 256-bit hash of a picture as 32 bytes (uint8)."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits: np.ndarray = np.packbits((grey[:, 1:] - grey[:, :-1] > CLEARLY).ravel()[ORDER])
    return bits


def near_duplicates(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Return pairs (i < j) of rows of `hashes` (N, 32) uint8 that differ in at most `distance` bits.

    The bytes are divided into distance + 1 bands (at most one band per byte). Two rows that differ in at most
    `distance` bits are equal in at least one band. Therefore only rows with an equal band are compared. If several rows
    are equal, only the first of these rows is compared with other rows, and each later row is paired with the first.
    """
    if len(hashes) < 2:
        return []
    rows, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    pairs = {
        (int(min(first[group], index)), int(max(first[group], index)))
        for index, group in enumerate(inverse)
        if first[group] != index
    }
    if distance:
        bands = np.array_split(np.arange(rows.shape[1]), min(distance + 1, rows.shape[1]))
        close: set[tuple[int, int]] = set()
        for band in bands if distance < rows.shape[1] else [np.arange(0)]:
            close |= set(_close_in_band(rows, np.ascontiguousarray(rows[:, band]), distance))
        pairs |= {tuple(sorted((int(first[one]), int(first[other])))) for one, other in close}  # type: ignore[misc]
    return sorted(pairs)


def _close_in_band(rows: np.ndarray, keys: np.ndarray, distance: int) -> Iterable[tuple[int, int]]:
    _, bucket = (
        np.unique(keys, axis=0, return_inverse=True) if keys.shape[1] else (None, np.zeros(len(rows), dtype=int))
    )
    order = np.argsort(bucket.reshape(-1), kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(bucket.reshape(-1)[order])) + 1):
        for begin in range(0, len(members), CHUNK) if len(members) > 1 else ():
            some = members[begin : begin + CHUNK]
            for other_begin in range(begin, len(members), CHUNK):
                others = members[other_begin : other_begin + CHUNK]
                different = np.bitwise_count(rows[some, None, :] ^ rows[None, others, :]).sum(-1, dtype=np.int32)
                for one, other in zip(*np.nonzero(different <= distance), strict=True):
                    if some[one] < others[other]:
                        yield int(some[one]), int(others[other])
