"""The confidence of a model in its answers, compared with its accuracy."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluation.conftest import SMALL, Copying, run
from tests.evaluation.test_baselines import many
from vasevqa.dataset.rows import Row
from vasevqa.evaluation import generation
from vasevqa.evaluation.confidence import agreement, confidence_of
from vasevqa.evaluation.generation import Answer, TransformersAnswers
from vasevqa.evaluation.metrics import Answered
from vasevqa.stages import evaluate


def answers(count: int, sure: Sequence[float], right: Sequence[float], attribute: str = "shape") -> list[Answered]:
    return [
        Answered(f"v{n % count}", attribute, "?", "kylix", "kylix", exact, exact, probability=one)
        for n, (one, exact) in enumerate(zip(sure, right, strict=True))
    ]


def test_a_calibrated_model_has_no_calibration_error() -> None:
    draw = random.Random(1)
    sure = [draw.random() for _ in range(4000)]
    right = [float(draw.random() < one) for one in sure]
    found = confidence_of(answers(200, sure, right))["probability"]
    assert found["all"]["ece"] < 0.03
    low, high = found["all"]["difference"]["interval"] or (1, 1)
    assert low < 0 < high
    surer = confidence_of(answers(200, [math.sqrt(one) for one in sure], right))["probability"]["shape"]
    assert surer["difference"]["value"] == pytest.approx(2 / 3 - 1 / 2, abs=0.03)
    assert surer["difference"]["interval"][0] > 0
    assert surer["ece"] == pytest.approx(surer["difference"]["value"], abs=0.01)


def test_bins_and_error_equal_hand_computed_values() -> None:
    found = confidence_of(answers(4, [0.05, 0.15, 0.15, 1.0], [0, 1, 0, 1]))["probability"]["all"]
    assert [(one["low"], one["rows"], one["right"]) for one in found["bins"]] == [(0, 1, 0), (0.1, 2, 0.5), (0.9, 1, 1)]
    assert found["ece"] == pytest.approx((0.05 + 2 * 0.35 + 0) / 4)
    assert (found["confidence"], found["right"]) == (pytest.approx(0.3375), 0.5)
    assert found["difference"]["no_interval"].startswith("too few vases")


@pytest.mark.parametrize(
    ("answer", "samples", "share"),
    [
        ("a kylix", ["Kylix.", "kylix", "a skyphos", "not a kylix"], 0.5),
        ("", ["", "kylix"], 0.5),
        ("xq", ["xq", "zz", "zz"], 1 / 3),
        ("a kylix", [], None),
    ],
)
def test_samples_with_the_same_meaning_agree(answer: str, samples: list[str], share: float | None) -> None:
    assert agreement(answer, samples, "shape") == (None if share is None else pytest.approx(share))


def row(folder: Path, number: int) -> Row:
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    found: Row = rows[number]
    return found


def test_the_probability_equals_that_of_one_forward_pass(tmp_path: Path, qwen: Path) -> None:
    data = many(tmp_path / "data", 4)
    rows = [row(data, 0), row(data, 3)]
    model = TransformersAnswers(qwen, data, evaluate.EvaluateParams(**SMALL), torch.device("cpu"))
    for number, said in enumerate(model(rows)):  # in one batch, and so with padding
        batch = model._batch([rows[number]])
        length = batch["input_ids"].shape[1]
        with torch.inference_mode():
            tokens = model._model.generate(**batch, max_new_tokens=6, do_sample=False)
            whole = {**batch, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            if "mm_token_type_ids" in batch:
                more = tokens.shape[1] - length
                whole["mm_token_type_ids"] = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, more))
            logits = model._model(**whole).logits[0, length - 1 : -1].float()
        each = logits.log_softmax(-1).gather(1, tokens[0, length:, None]).squeeze(1)
        assert said.probability == pytest.approx(math.exp(float(each.sum())), rel=1e-3)
        assert 0 < said.probability <= 1


def test_samples_of_a_real_model_are_stored_and_reproducible(tmp_path: Path, qwen: Path) -> None:
    data = many(tmp_path / "data", 8)
    found, _ = run(tmp_path / "out", {"dataset": data, "base": qwen}, samples=3, temperature=2.0)
    told = json.loads((tmp_path / "out/answers-base.json").read_text())
    assert {len(one["samples"]) for one in told} == {3}
    assert any(len({*one["samples"], one["answer"]}) > 1 for one in told)
    assert set(found["models"]["base"]["confidence"]) == {"probability", "agreement"}
    run(tmp_path / "again", {"dataset": data, "base": qwen}, samples=3, temperature=2.0)
    assert json.loads((tmp_path / "again/answers-base.json").read_text()) == told
    assert "| base | agreement | shape |" in (tmp_path / "out/comparison.md").read_text()


class Unsure(Copying):
    """A model that is right with probability 0.5, and gives another answer in one of two samples."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        return [Answer(row["solution"], 0.5, (row["solution"], "a pyxis")) for row in rows]


def test_an_evaluation_reports_the_confidence_of_the_model(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Unsure)
    found, _ = run(tmp_path / "out", {"dataset": many(tmp_path / "data", 12), "grpo": qwen})
    told = found["models"]["grpo"]["confidence"]
    for kind in ("probability", "agreement"):
        assert (told[kind]["all"]["confidence"], told[kind]["all"]["right"], told[kind]["all"]["ece"]) == (0.5, 1, 0.5)
    line = "| grpo | probability | all | 0.500 | 1.000 | -0.500 [-0.500, -0.500] | 0.500 | 12 | 24 |"
    assert line in (tmp_path / "out/comparison.md").read_text()
