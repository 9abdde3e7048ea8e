"""Split a dataset without leaks, so that near-duplicate pictures and all views of a vase are on the same side."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

from scipy.cluster.hierarchy import DisjointSet


def groups(items: int, same: Iterable[Sequence[Hashable]], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Group the items 0..items-1.

    `same` holds a sequence of marks for each item. Two items are in the same group if they have a mark in common, or if
    they are a pair in `pairs`. Groups with a common item are merged.
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
    """Return the side of each group of vases: 'train', 'val' or 'eval'.

    The name of a group is the smallest vase id in the group. The side depends only on the name and the seed. New groups
    therefore don't change the sides of existing groups. There is one exception: if train or a side with a fraction
    above 0 would be empty, it gets a group from another side. If there are at least as many groups as these sides, none
    of them is empty. A single group is always in train.
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
