"""`python -m scripts.demo_learned VOLUME`: check what the models of the demo's newest run have learned.

The figures are shares of exact answers about technique, fabric and shape. They are means over held-out vases. The gain
from fine-tuning has a 95% interval that treats vases as the units. The drawn photographs have known properties, so the
two filters are checked as well.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from vasevqa.dataset.rows import Row, image_root
from vasevqa.reward.score import score
from vasevqa.sample.dataset import VISIBLE
from vasevqa.sample.teaching import taught_on
from vasevqa.statistics import Difference, paired

FEWEST_VASES = 40
COMMONEST = 0.45  # greatest share of one value among the drawn vases, so that a constant answer is mostly wrong
BASE, GAIN, WORSE, BLIND = 0.15, 0.35, 0.05, 0.2
DAMAGED, INTACT = 0.7, 0.05  # least share of damaged photographs that clip-filter rejects, greatest of intact ones
PROBE = 0.8
PROMPTS, BATCH = 96, 48  # prompts whose answers are sampled, and prompts at once


def newest(volume: Path) -> Path:
    """Return the folder `steps` of the newest run that has evaluated its models."""
    runs = [run for run in (volume / "runs").iterdir() if (run / "steps/evaluate").exists()]
    return max(runs, key=lambda run: run.name) / "steps"


def accuracies(steps: Path) -> dict[str, dict[str, float]]:
    """Return the share of exact answers by model and vase."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (steps / "evaluate/answers.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["attribute"] in VISIBLE:
                found[row["model"]][row["vase"]].append(float(row["exact"]))
    return {
        model: {vase: sum(values) / len(values) for vase, values in vases.items()} for model, vases in found.items()
    }


def mean(values: Mapping[str, float]) -> float:
    """Return the mean over vases."""
    return sum(values.values()) / len(values)


def compared(one: Mapping[str, float], other: Mapping[str, float]) -> Difference:
    """Return the mean of one model minus the mean of another, with a 95% interval that treats vases as the units."""
    assert one.keys() == other.keys()
    return paired([one[vase] for vase in one], [other[vase] for vase in one], list(one))


def sampled(model: Path, dataset: Path, part: str) -> float:
    """Return the mean reward of answers that a model samples for the first prompts in a part of the dataset."""
    import torch

    from vasevqa.evaluation.generation import TransformersAnswers
    from vasevqa.evaluation.params import EvaluateParams

    rows = read_rows(dataset / f"{part}.jsonl")[:PROMPTS]
    params = EvaluateParams(torch_dtype="float32", max_new_tokens=16, max_pixels=12544, samples=4)
    answer = TransformersAnswers(model, image_root(dataset.resolve(), None), params, torch.device("cpu"))
    rewards = [
        score(text, row["solution"], row["attribute"], row["messages"][0]["content"]).value
        for begin in range(0, len(rows), BATCH)
        for row, said in zip(rows[begin : begin + BATCH], answer(rows[begin : begin + BATCH]), strict=True)
        for text in said.samples
    ]
    return sum(rewards) / len(rewards)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a part of the dataset, each with its true answer as `solution`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**row, "solution": row.get("solution") or row["messages"][-1]["content"]} for row in rows]


def rewarded(steps: Path) -> None:
    """Check that answers to GRPO's own prompts earn more after GRPO than before. Print the held-out prompts too."""
    found = {}
    for part, about in (("eval", "held-out prompts"), ("grpo", "prompts of GRPO")):
        found[part] = [sampled(steps / name, steps / "build-dataset", part) for name in ("merge-sft", "merge-grpo")]
        before, after = found[part]
        print(f"mean reward of sampled answers to the same {about}: {before:.3f} before GRPO, {after:.3f} after")
    before, after = found["grpo"]
    assert after > before


def learned(steps: Path) -> None:
    """Check that fine-tuning, the picture and reinforcement learning improve the answers."""
    vases = accuracies(steps)
    [blind] = [name for name in vases if name.endswith("without picture")]
    seen = {name: mean(vases[name]) for name in ("base", "sft", "grpo", blind)}
    gain = compared(vases["sft"], vases["base"])
    change = compared(vases["grpo"], vases["sft"]).value
    assert gain.interval is not None
    print(
        f"exact answers on {len(vases['sft'])} held-out vases: "
        + ", ".join(f"{name} {value:.3f}" for name, value in seen.items())
        + f"; sft - base {gain.value:+.3f} [{gain.interval[0]:+.3f}, {gain.interval[1]:+.3f}]; grpo - sft {change:+.3f}"
    )
    assert len(vases["sft"]) >= FEWEST_VASES
    assert seen["base"] < BASE
    assert gain.value >= GAIN
    assert gain.interval[0] > 0
    assert change >= -WORSE
    assert seen["sft"] - seen[blind] >= BLIND


def balanced(inputs: Path) -> None:
    """Check that no value is too common among the drawn vases, and that the base model has seen none of them."""
    rows = json.loads((inputs / "annotations.json").read_text(encoding="utf-8"))
    for attribute in VISIBLE:
        [(value, count)] = Counter(row[attribute] for row in rows).most_common(1)
        print(f"{len(rows)} drawn vases: {count / len(rows):.0%} are {value}")
        assert count / len(rows) <= COMMONEST
    shared = taught_on(inputs / "models/tiny-qwen") & {row["vase_id"] for row in rows}
    assert not shared, shared


def filtered(steps: Path, inputs: Path) -> None:
    """Check that clip-filter rejects most of the damaged vases and few of the intact vases that it gets."""
    truth = {row["name"]: row["quality"] for row in json.loads((inputs / "truth.json").read_text(encoding="utf-8"))}
    images = json.loads((steps / "clip-filter/filtering_report.json").read_text(encoding="utf-8"))["images"]
    rejected = {
        kind: [not image["accepted"] for image in images if truth[image["name"]] == kind]
        for kind in ("damaged", "intact")
    }
    shares = {kind: sum(values) / len(values) for kind, values in rejected.items()}
    print(
        "clip-filter rejected "
        + " and ".join(f"{share:.1%} of {len(rejected[kind])} {kind}" for kind, share in shares.items())
        + " photographs that the classifier had accepted"
    )
    assert shares["damaged"] >= DAMAGED
    assert shares["intact"] < INTACT


def probed(steps: Path, inputs: Path) -> None:
    """Check that a linear classifier finds the techniques of held-out vases from the base model's picture features."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModelForImageTextToText

    from vasevqa.curation.images import open_image
    from vasevqa.sample.teaching import SIDE, look_at

    features: dict[str, tuple[list[list[float]], list[object]]] = {}
    root = image_root((steps / "build-dataset").resolve(), None)
    tower = AutoModelForImageTextToText.from_pretrained(inputs / "models/tiny-qwen").model.visual
    for part in ("sft", "eval"):
        rows = [row for row in read_rows(steps / f"build-dataset/{part}.jsonl") if row["attribute"] == "technique"]
        pictures = [open_image(root / row["images"][0]).resize((SIDE, SIDE)) for row in rows]
        pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures])
        with torch.no_grad():
            tokens = look_at(tower, pixels.view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2))
        features[part] = tokens.mean(1).tolist(), [row["solution"] for row in rows]
    probe = LogisticRegression(max_iter=2000).fit(*features["sft"])
    reached = probe.score(*features["eval"])
    print(f"a linear probe on the base model's picture features tells {reached:.1%} of the techniques")
    assert reached >= PROBE


def trained(steps: Path) -> None:
    """Check that both trainings changed their adapters, and that answers to the same prompt had different rewards."""
    sft, grpo = (json.loads((steps / name / "training_summary.json").read_text()) for name in ("sft", "grpo"))
    assert sft["last_loss"] < sft["first_loss"] / 2, sft
    assert sft["adapter_norm"] > 0.1, sft
    assert grpo["reward_spread"] > 0, grpo
    assert grpo["adapter_norm"] > 0, grpo


def main(volume: Path, inputs: Path) -> None:
    """Print the figures. Raise AssertionError if one of them is outside its bound."""
    steps = newest(volume)
    trained(steps)
    balanced(inputs)
    filtered(steps, inputs)
    probed(steps, inputs)
    learned(steps)
    rewarded(steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(sys.argv[1]) / "inputs")
