"""Splits that don't leak: near-duplicate pictures and all views of a vase stay on one side.

Near-duplicates are found by a difference hash (Krawetz, "Kind of Like That", 2013) of 256 bits: a bit is set where a
pixel of the picture reduced to 17 x 16 is clearly darker than its right neighbour.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet

SIDE = 16
CLEARLY = 3  # grey levels: below it, noise on a plain background would decide
CHUNK = 2048
# Mixed, so that each group of bytes holds bits from all over the picture: plain backgrounds alone would put all
# pictures into one bucket.
ORDER = np.random.default_rng(0).permutation(SIDE * SIDE)


def difference_hash(image: Image.Image) -> np.ndarray:
    """256 bits of a picture as 32 bytes (uint8)."""
    grey = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits: np.ndarray = np.packbits((grey[:, 1:] - grey[:, :-1] > CLEARLY).ravel()[ORDER])
    return bits


def near_duplicates(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Pairs (i < j) of rows of `hashes` (N, 32) uint8 that differ in at most `distance` bits.

    Two such rows agree wholly in one of distance + 1 groups of bytes (while there are that many), so only rows that
    share a group's value are compared. Of rows that are equal, neighbours are paired, not all with all.
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
    """Items 0..items-1 in groups: two are together if any of their marks in `same` (one sequence an item) is equal, or
    they are a pair.
    """
    together = DisjointSet(range(items))
    seen: dict[Hashable, int] = {}
    for item, marks in enumerate(same):
        for mark in marks:
            together.merge(item, seen.setdefault(mark, item))
    for one, other in pairs:
        together.merge(one, other)
    return sorted(sorted(int(item) for item in group) for group in together.subsets())


def split(sizes: Sequence[int], val_fraction: float, eval_fraction: float, seed: int) -> list[str]:
    """'train', 'val' or 'eval' for each group, given its number of images.

    Groups are shuffled by `seed` and go to eval, then val, as long as they fit into its share of the images. Training
    comes first: with one group there is nothing else; from two on there is eval, from three on val.
    """
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    sides = ["train"] * len(sizes)
    total = sum(sizes)
    for side, fraction, kept in (
        ("eval", eval_fraction, 2 if val_fraction and len(sizes) > 2 else 1),
        ("val", val_fraction, 1),
    ):
        left = [group for group in order if sides[group] == "train"]
        if not fraction or len(left) <= kept:
            continue
        taken: list[int] = []
        for group in left:
            if (
                len(taken) < len(left) - kept
                and sum(sizes[one] for one in taken) + sizes[group] <= fraction * total + 0.5
            ):
                taken.append(group)
        for group in taken or [min(left, key=lambda group: (sizes[group], order.index(group)))]:
            sides[group] = side
    return sides
