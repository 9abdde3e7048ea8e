"""Split without leaks: near-duplicate pictures and all views of a vase stay in the same part.

Near-duplicates are found by a difference hash (Krawetz, "Kind of Like That", 2013) of 256 bits. The picture is reduced
to 17 x 16 pixels. A bit is set if a pixel is clearly darker than its right neighbour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet

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

    The bytes are divided into distance + 1 bands (at most one band per byte). Two rows within `distance` bits are equal
    in at least one band. Therefore only rows with an equal band are compared. If several rows are equal, each of them
    is paired with the first one.
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


def groups(items: int, same: Iterable[Sequence[Hashable]], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the items 0..items-1.

    `same` holds a sequence of marks for each item. Two items are in the same group if they have a mark in common, or if
    they are in `pairs`.
    """
    together = DisjointSet(range(items))
    seen: dict[Hashable, int] = {}
    for item, marks in enumerate(same):
        for mark in marks:
            together.merge(item, seen.setdefault(mark, item))
    for one, other in pairs:
        together.merge(one, other)
    return sorted(sorted(int(item) for item in group) for group in together.subsets())


def place_of(group: str, seed: int) -> float:
    """Return a number in [0, 1) that depends only on the group's name and the seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}-{group}".encode()).digest()[:8], "big") / 2**64


def split(names: Sequence[str], val_fraction: float, eval_fraction: float, seed: int) -> list[str]:
    """Return 'train', 'val' or 'eval' for each group. The name of a group is the smallest vase id in the group.

    The side depends only on the name and the seed. New groups therefore don't move other groups. There is one
    exception: an empty side gets the groups whose numbers are nearest to its share. A single group is put in train.
    With two or more groups there is an eval side. With three or more groups there is a val side.
    """
    places = [place_of(name, seed) for name in names]
    sides = [
        "eval" if place < eval_fraction else "val" if place < eval_fraction + val_fraction else "train"
        for place in places
    ]
    order = sorted(range(len(names)), key=lambda group: (places[group], names[group]))
    if names and "train" not in sides:
        sides[order[-1]] = "train"
    for side, fraction, fewest in (("eval", eval_fraction, 2), ("val", val_fraction, 3 if eval_fraction else 2)):
        if not fraction or side in sides or len(names) < fewest:
            continue
        spare = [[group for group in order if sides[group] == other] for other in ("train", "eval", "val")]
        donor = next((groups for groups in spare if len(groups) > 1), None)
        if donor is not None:
            sides[donor[0]] = side
    return sides
