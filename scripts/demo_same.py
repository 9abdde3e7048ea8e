"""`python -m scripts.demo_same ONE TWO [STEP...]`: compare the newest runs in the volumes ONE and TWO.

The steps that are named are left out.

The runs may have used different backends or machines. Photographs, choices and texts must be equal. Numbers (scores,
losses, weights) may differ within a tolerance, because another machine may add numbers in another order.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

ABSOLUTE, RELATIVE = 2e-3, 2e-2
# Names of values that describe when, where and by which attempt a result was made. They are not compared.
PROVENANCE = re.compile(
    # `row` is a digest that covers the paths of model and photograph
    r"seconds|time|speed|started|finished|host|path|dir|folder|root|version|elapsed|duration|memory|per_second|rate$|runtime|throughput|output|train_speed|^row$"
)
SETTINGS = {
    "args.json",
    "training_args.bin",
    "trainer_state.json",
    "logging.jsonl",
    "README.md",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
}
PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}
DRAWN = {"score_histogram.png", "training_curves.png"}  # plots of numbers that are compared elsewhere
WEIGHTS = {".safetensors", ".pth"}


def newest(volume: Path) -> dict[str, Path]:
    """Return a mapping from each step of the volume's newest run to the folder of its artifact."""
    run = max((run for run in (volume / "runs").iterdir() if (run / "steps").is_dir()), key=lambda run: run.name)
    return {entry.name: entry.resolve() for entry in sorted((run / "steps").iterdir())}


def differences(one: Any, two: Any, where: str) -> list[str]:
    """Return a sentence for each difference between two JSON values. `where` is the place of the values in the file."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = {key for key in {*one, *two} if not PROVENANCE.search(str(key))}
        return [text for key in sorted(keys) for text in differences(one.get(key), two.get(key), f"{where}.{key}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            text
            for number, pair in enumerate(zip(one, two, strict=True))
            for text in differences(*pair, f"{where}[{number}]")
        ]
    numbers = isinstance(one, (int, float)) and isinstance(two, (int, float)) and not isinstance(one, bool)
    if numbers and (one == two or math.isclose(one, two, rel_tol=RELATIVE, abs_tol=ABSOLUTE)):
        return []
    if isinstance(one, str) and isinstance(two, str) and one.startswith("/") and two.startswith("/"):
        return []  # each run has its own volume, and the inputs may have other names there
    return [] if one == two or where.endswith(".model.name") else [f"{where}: {str(one)[:80]} and {str(two)[:80]}"]


def tensors(path: Path) -> dict[str, Any]:
    """Return a mapping from names to tensors, for a file of weights."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    tree = torch.load(path, map_location="cpu", weights_only=True)
    flat: dict[str, Any] = {}

    def walk(value: Any, name: str) -> None:
        if torch.is_tensor(value):
            flat[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{name}.{key}")

    walk(tree, "")
    return flat


def weights(one: Path, two: Path, where: str) -> list[str]:
    """Return a list with one sentence if the weights of two models differ, otherwise an empty list.

    Differences up to `RELATIVE` are ignored.
    """
    first, second = tensors(one), tensors(two)
    if first.keys() != second.keys():
        return [f"{where}: the tensors have other names"]
    squares = sum(float((first[name].double() - second[name].double()).pow(2).sum()) for name in first)
    size = sum(float(first[name].double().pow(2).sum()) for name in first)
    distance = math.sqrt(squares / max(size, 1e-12))
    return [f"{where}: the weights differ by {distance:.1%}"] if distance > RELATIVE else []


def compare(one: Path, two: Path, step: str) -> list[str]:
    """Return a sentence for each difference between two artifacts of the step `step`."""
    if one.name != two.name:
        return [f"{step}: the keys differ, {one.name[:10]} and {two.name[:10]}"]
    records = [json.loads((path / "artifact.json").read_text(encoding="utf-8"))["files"] for path in (one, two)]
    # TensorBoard names its files by time, host and process.
    records = [{name: entry for name, entry in record.items() if "tfevents" not in name} for record in records]
    if records[0].keys() != records[1].keys():
        return [f"{step}: only one artifact has {', '.join(sorted(records[0].keys() ^ records[1].keys())[:5])}"]
    found = []
    for name, first in records[0].items():
        where, path = f"{step}/{name}", Path(name)
        if (
            first["sha256"] == records[1][name]["sha256"]
            or path.name in SETTINGS | DRAWN
            or "checkpoint-" in name
            or "training/images/" in name
        ):
            continue
        if path.suffix == ".json":
            found += differences(*(json.loads((root / name).read_text(encoding="utf-8")) for root in (one, two)), where)
        elif path.suffix == ".jsonl":
            found += differences(
                *(
                    [json.loads(line) for line in (root / name).read_text(encoding="utf-8").splitlines()]
                    for root in (one, two)
                ),
                where,
            )
        elif path.suffix in WEIGHTS:
            found += weights(one / name, two / name, where)
        elif path.suffix in PICTURES:
            found.append(f"{where}: the pictures differ")
    return found


def main(one: Path, two: Path, left_out: Collection[str] = ()) -> int:
    """Print the differences between the steps that both runs have, without the steps `left_out`.

    Return 1 if there are differences, otherwise 0.
    """
    first, second = newest(one), newest(two)
    both = [step for step in first if step in second and step not in left_out]
    assert both, "the two runs have no step in common"
    found = [text for step in both for text in compare(first[step], second[step], step)]
    for text in found[:40]:
        print(text)
    print(f"{'differences in' if found else 'the same artifacts:'} {', '.join(both)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
