"""The comparisons in the report of evaluate: baselines, answers without the picture, samples, pairs, mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from tests.evaluation.conftest import SHAPES, Copying, run
from vasevqa.evaluation import generation
from vasevqa.evaluation.generation import Answer
from vasevqa.sample.tiny_qwen import make_tiny_qwen


def many(folder: Path, vases: int, shapes: Sequence[str] = SHAPES) -> Path:
    """Write a dataset of `vases` held-out vases with two rows each. In the training rows, kylix is most common."""
    (folder / "images").mkdir(parents=True)
    files: dict[str, list[dict[str, Any]]] = {"sft": [], "eval": []}
    for number in range(vases + 6):
        held_out = number < vases
        picture = f"images/{number}.jpg"
        Image.new("RGB", (28, 28), (number, 0, 0)).save(folder / picture)
        shape = shapes[number % len(shapes)] if held_out else ("kylix", "kylix", "krater")[number % 3]
        for attribute, answer in (("shape", shape), ("date", "525-475 BCE")):
            question = {"role": "user", "content": f"<image>What is the {attribute}?"}
            row = {"images": [picture], "vase_id": f"v{number}", "attribute": attribute, "solution": answer}
            files["eval" if held_out else "sft"].append(
                {**row, "messages": [question, {"role": "assistant", "content": answer}]}
            )
    for file, rows in files.items():
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Majority(Copying):
    """A model that gives the most common answer of the training rows."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        return [Answer("kylix" if row["attribute"] == "shape" else "525-475 BCE") for row in rows]


def test_baselines_come_from_the_training_rows(tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Majority)
    found, progress = run(tmp_path / "out", {"dataset": many(tmp_path / "data", 12), "grpo": qwen})
    for baseline in ("majority", "constant"):
        assert found["baselines"][baseline] == {
            name: figure for name, figure in found["models"]["grpo"].items() if name in ("attributes", "rewards")
        }
    shape = found["baselines"]["majority"]["attributes"]["shape"]["exact"]
    assert (shape["value"], shape["vases"], shape["samples"]) == (pytest.approx(1 / 3), 12, 12)
    assert (found["vases"], found["samples"]) == (12, 24)
    assert "24 held-out rows of 12 vases; mean reward: grpo" in progress.summaries[0][0]


def test_models_and_baselines_are_compared_on_the_same_rows(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Majority)
    dataset = many(tmp_path / "data", 12)
    rows = [json.loads(line) for line in (dataset / "eval.jsonl").read_text().splitlines()]
    for row in rows[::2]:  # captions, for which there is no baseline
        row["attribute"], row["solution"] = "caption", "An Attic vase."
    (dataset / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = run(tmp_path / "out", {"dataset": dataset, "sft": qwen})
    model, majority = found["models"]["sft"], found["baselines"]["majority"]
    assert model["rewards"]["samples"] == 24
    assert "rewards" not in majority
    assert model["common_rewards"] == majority["common_rewards"]
    assert (majority["common_rewards"]["value"], majority["common_rewards"]["samples"]) == (1, 12)
    table = (tmp_path / "out/comparison.md").read_text()
    assert "Common rows: the rows that all models and all baselines answered." in table


class Looking(Copying):
    """A model that answers with the truth if it gets the picture, and with kylix otherwise."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        assert all(("<image>" in json.dumps(row["messages"])) == bool(row["images"]) for row in rows)
        return [Answer(row["solution"] if row["images"] else "kylix") for row in rows]


def test_answers_without_the_picture_show_whether_a_model_uses_it(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Looking)
    found, _ = run(tmp_path / "out", {"dataset": many(tmp_path / "data", 12), "sft": qwen}, blind=True)
    blind = found["baselines"]["sft without picture"]
    assert found["models"]["sft"]["rewards"]["value"] == 1
    assert blind["attributes"]["shape"]["exact"]["value"] == pytest.approx(1 / 3)
    assert blind["attributes"]["date"]["exact"]["value"] == 0
    [pair] = [pair for pair in found["pairs"] if not pair["attribute"]]
    assert (pair["model"], pair["other"], pair["shown"]) == ("sft", "sft without picture", True)
    assert pair["sentence"].endswith("better (significant with 12 vases)")
    table = (tmp_path / "out/comparison.md").read_text()
    assert "- sft without picture: sft, asked the same questions without the picture." in table


def test_a_real_model_answers_without_the_picture(tmp_path: Path, qwen: Path) -> None:
    found, _ = run(tmp_path / "out", {"dataset": many(tmp_path / "data", 8), "base": qwen}, blind=True)
    answers = json.loads((tmp_path / "out/answers-base-blind.json").read_text())
    assert len(answers) == 16
    # Without the picture, each question has the same answer for all vases.
    assert len({(row["question"], row["answer"]) for row in answers}) == 2
    assert found["baselines"]["base without picture"]["rewards"]["samples"] == 16


def test_a_sample_contains_whole_vases(tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    dataset = many(tmp_path / "data", 12)
    drawn = []
    for name, seed in (("one", 1), ("two", 2), ("again", 1)):
        found, _ = run(tmp_path / name, {"dataset": dataset, "sft": qwen}, max_samples=7, seed=seed)
        assert (found["samples"], found["vases"]) == (6, 3)
        drawn.append({row["vase_id"] for row in json.loads((tmp_path / name / "answers-sft.json").read_text())})
    assert drawn[0] == drawn[2] != drawn[1]
    found, _ = run(tmp_path / "least", {"dataset": dataset, "sft": qwen}, max_samples=1)
    assert (found["samples"], found["vases"]) == (2, 1)


def test_p_values_are_adjusted_for_the_number_of_attributes(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    other = tmp_path / "merged"
    make_tiny_qwen(other, seed=1)
    found, _ = run(tmp_path / "out", {"dataset": many(tmp_path / "data", 12), "base": qwen, "sft": other})
    by = {pair["attribute"]: pair for pair in found["pairs"]}
    assert set(by) == {"", "shape", "date"}
    assert all((pair["model"], pair["other"]) == ("sft", "base") for pair in by.values())
    assert by["shape"]["p_holm"] == 1
    assert "no significant difference with 12 vases" in by[""]["sentence"]


class Wrong(Copying):
    """A model that makes each kind of mistake in turn."""

    said: ClassVar[list[str]] = ["kylix", "I do not know", "", "lekythos or krater", "band-cup", "zzz"]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        number = [int(row["vase_id"][1:]) for row in rows]
        return [
            Answer(self.said[vase % 6] if row["attribute"] == "shape" else row["solution"])
            for vase, row in zip(number, rows, strict=True)
        ]


def test_the_mistakes_of_a_model_are_reported_by_kind(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Wrong)
    dataset = many(tmp_path / "data", 12, ["cup A"])
    found, _ = run(tmp_path / "out", {"dataset": dataset, "sft": qwen})
    mistakes = found["models"]["sft"]["mistakes"]
    assert mistakes["kinds"]["shape"] == {"wrong subtype": 4, "malformed": 4, "refused": 2, "hedged": 2}
    assert mistakes["kinds"]["date"] == {"right": 12}
    assert mistakes["confusion"]["shape"] == {"kylix": {"kylix": 4, "(nothing known)": 6, "(several)": 2}}
    assert mistakes["confusion_fine"]["shape"]["cup A"]["band-cup"] == 2
    assert mistakes["classes"]["shape"]["kylix"]["vases"] == 12
    assert [row["reward"] for row in mistakes["worst"]] == sorted(row["reward"] for row in mistakes["worst"])
    with (tmp_path / "out/answers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    assert {row["concept"] for row in rows if row["attribute"] == "shape"} == {
        "kylix",
        "",
        "lekythos|krater",
        "band-cup",
    }
