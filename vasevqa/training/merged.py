"""Check every tensor of a merged model against the base model and the adapter, without peft.

A target is a weight that LoRA or DoRA changes. For a target of LoRA, the merged weight must be base + scale * B @ A (Hu
et al. 2021, arXiv:2106.09685). For a target of DoRA, the rows of this sum are scaled to the trained magnitude (Liu et
al. 2024, arXiv:2402.09353). Every other tensor must be equal to the base model's tensor, or to the adapter's tensor
that replaces it. The check loads only a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vasevqa import models
from vasevqa.training.adapter import Adapter, Pair
from vasevqa.training.checkpoints import ADAPTER

ROWS = 4_000_000  # how many numbers of a tensor are compared at a time
# Double rounding may shift single weights by one rounding step. If the deviations are larger than this fraction of the
# whole change (both as root of the sum of squares), the change itself is wrong.
OTHER_CHANGE = 0.3


@dataclass
class Weights:
    """The result of the comparison: counts of tensors, and the greatest deviation of a weight from its expected value.

    `targets` counts the targets, and `changed` counts the targets whose weights differ from the base model. `zero`
    counts the targets with B = 0, whose weights must not change. `replaced` counts the tensors that the adapter
    replaces. `others` counts all other tensors. Each entry of `complaints` says what is wrong with one tensor.
    """

    targets: int = 0
    changed: int = 0
    zero: int = 0
    replaced: int = 0
    others: int = 0
    max_deviation: float = 0.0
    complaints: list[str] = field(default_factory=list)


class _Model:
    """The tensors of a model folder, by the names that the installed version of transformers uses."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key

        self.skeleton = models.skeleton(folder)
        renamings = [step for step in get_model_conversion_mapping(self.skeleton) if isinstance(step, WeightRenaming)]
        known = self.skeleton.state_dict()
        files = models.tensor_files(folder)
        opened = {file: stack.enter_context(safe_open(file, framework="pt")) for file in set(files.values())}
        self._places: dict[str, tuple[Any, str]] = {}
        for name, file in files.items():
            now = name if name in known else rename_source_key(name, renamings, [])[0]
            self._places[now] = (opened[file], name)
        for one, other in self.skeleton.all_tied_weights_keys.items():  # only one of two tied tensors is stored
            for absent, stored in ((one, other), (other, one)):
                if absent not in self._places and stored in self._places:
                    self._places[absent] = self._places[stored]

    def names(self) -> set[str]:
        return set(self._places)

    def part(self, name: str) -> Any:
        file, stored = self._places[name]
        return file.get_slice(stored)


def compare(adapter: Adapter, base: Path, merged: Path, dtype: torch.dtype) -> Weights:
    """Compare all tensors of the model in `merged` with the result expected from `base` and `adapter` in `dtype`.

    Raise DataError if the weights in `merged` don't fit the configuration in `merged`.
    """
    found = Weights()
    with ExitStack() as stack:
        before, after = _Model(base, stack), _Model(merged, stack)
        given = stack.enter_context(safe_open(adapter.folder / ADAPTER, framework="pt"))
        weights = {f"{module}.weight": pair for module, pair in adapter.pairs.items()}
        for name in sorted(before.names() ^ after.names()):
            found.complaints.append(f"{name} is in only one of base and merged model")
        for name in sorted(before.names() & after.names()):
            old, new = before.part(name), after.part(name)
            if name in adapter.replaced:
                found.replaced += 1
                _same(name, given.get_slice(adapter.replaced[name]), new, dtype, found)
            elif name in weights:
                found.targets += 1
                _target(name, old, new, _Change(weights[name], given), dtype, found)
            else:
                found.others += 1
                _same(name, old, new, dtype, found)
    absent = sorted((set(weights) | set(adapter.replaced)) - before.names())
    found.complaints += [f"{name} is a target, but the base model doesn't hold it" for name in absent]
    return found


def _rows(shape: list[int]) -> Iterator[slice]:
    count = shape[0] if shape else 1
    width = max(1, torch.Size(shape[1:]).numel())
    step = max(1, ROWS // width)
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


def _same(name: str, old: Any, new: Any, dtype: torch.dtype, found: Weights) -> None:
    """Check that the tensor `new` equals `old` rounded to `dtype`, the merged model's type."""
    shape = old.get_shape()
    if new.get_shape() != shape:
        found.complaints.append(f"{name} has shape {new.get_shape()}, but should have {shape}")
        return
    for rows in _rows(shape) if shape else (...,):
        one, other = old[rows].to(dtype), new[rows]
        if not bool(one.isfinite().all()):
            found.complaints.append(f"{name} holds numbers that are not finite in {dtype}".replace("torch.", ""))
            return
        if not torch.equal(one, other.to(dtype)):
            far = float((one.double() - other.double()).abs().max())
            found.max_deviation = max(found.max_deviation, far)
            found.complaints.append(f"{name} should equal the base, but differs by {far:.2g}")
            return


class _Change:
    """The change that LoRA or DoRA makes to a weight. `weight` returns the changed rows in float32."""

    def __init__(self, pair: Pair, given: Any) -> None:
        self.scale = pair.scale
        self.a, self.b = given.get_tensor(pair.a).float(), given.get_tensor(pair.b).float()
        self.magnitude = given.get_tensor(pair.magnitude).float() if pair.magnitude else None

    def weight(self, old: Tensor, rows: slice) -> Tensor:
        whole = old + self.scale * (self.b[rows] @ self.a)
        if self.magnitude is None:
            return whole
        return whole * (self.magnitude[rows] / whole.norm(dim=1))[:, None]

    def rounding(self, old: Tensor, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return the largest allowed deviation of each weight in `rows` from its exact value.

        The bound assumes that base, A, B, the product and the sum are each rounded to `dtype`.
        """
        kind, single = torch.finfo(dtype), torch.finfo(torch.float32)
        sizes = abs(self.scale) * (self.b[rows].abs() @ self.a.abs())
        rank = self.a.shape[0]
        bound = kind.eps * (old.abs() + 2 * sizes) + single.eps * rank * sizes + kind.smallest_normal * kind.eps
        if self.magnitude is None:
            return bound
        factor = self.magnitude[rows].abs() / (old + self.scale * (self.b[rows] @ self.a)).norm(dim=1)
        return (4 * bound + kind.eps * old.abs()) * factor.clamp(min=1)[:, None]


def _target(name: str, old: Any, new: Any, change: _Change, dtype: torch.dtype, found: Weights) -> None:
    shape = old.get_shape()
    if new.get_shape() != shape:
        found.complaints.append(f"{name} has shape {new.get_shape()}, but should have {shape}")
        return
    wanted_change = off = 0.0  # squares
    greatest, over, changed, real = 0.0, 0, False, False
    for rows in _rows(shape):
        stored = old[rows]
        one, other = stored.float(), new[rows].float()
        exact = change.weight(one, rows)
        expected, kept = exact.to(dtype).float(), stored.to(dtype).float()
        far = (other - expected).abs()
        over += int((~(far <= change.rounding(one, rows, dtype))).sum())  # every comparison with NaN is false
        greatest = max(greatest, float(far.nan_to_num(torch.inf).max()))
        changed |= not torch.equal(other, kept)
        real |= not torch.equal(exact, one)
        wanted_change += float((expected - kept).double().pow(2).sum())
        off += float(far.double().pow(2).sum())
    found.max_deviation = max(found.max_deviation, greatest)
    found.changed += changed
    found.zero += not real
    if over:
        found.complaints.append(f"{name} is not base + scale * B @ A: {over} weights deviate, by up to {greatest:.2g}")
    elif real and not changed:
        found.complaints.append(f"{name} equals the base, although its adapter is not zero")
    elif off > OTHER_CHANGE**2 * wanted_change and real:
        found.complaints.append(f"the change of {name} is not scale * B @ A; it differs by up to {greatest:.2g}")
