"""The report shows held-out questions with the answers of all models side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests import pictures
from tests.report.kit import NASTY, curated, section, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.report.html import write_report

HEADER = "model,vase,attribute,question,truth,answer,exact,reward,concept,concept_uri"


def answered(volume_root: Path, rewards: dict[str, list[float]], models: list[str]) -> list[str]:
    """Return the cards of an evaluation with these rewards, one question for each vase."""
    measured = {name: {"rewards": {"value": 0.5}} for name in models}
    run = curated(volume_root, {"build-dataset/dataset_report.json": {"image_root": "../../.."},
                                "evaluate/evaluation.json": {"samples": 1, "models": measured}})  # fmt: skip
    lines, rows = [HEADER], []
    for model, given in rewards.items():
        for vase, reward in enumerate(given):
            lines.append(
                f"{model},v{vase},shape,<image>Which <shape>?,amphora,{NASTY} {vase},{int(reward == 1)},{reward},,"
            )
    for vase in range(len(next(iter(rewards.values())))):
        turn = {"role": "user", "content": "<image>Which <shape>?"}
        rows.append({"messages": [turn], "images": [f"kept/{vase}.jpg"], "vase_id": f"v{vase}", "attribute": "shape"})
    rows[1]["images"] = ["../secret.jpg"]
    pictures.save(volume_root / "kept/0.jpg", 1)
    pictures.save(volume_root.parent / "secret.jpg", 2)
    (volume_root / "artifacts/evaluate/k/answers.csv").write_text("\n".join(lines))
    (volume_root / "artifacts/build-dataset/k/eval.jsonl").write_text("\n".join(map(json.dumps, rows)))
    html = write_report(run, Volume(volume_root)).read_text()
    assert NASTY not in html
    return re.findall(r"<article.*?</article>", section(html, "evaluation"), flags=re.DOTALL)


def test_a_card_has_the_photograph_the_truth_and_the_marked_answer_of_each_model(volume_root: Path) -> None:
    rewards = {"base": [0.0, 1.0], "sft": [0.5, 1.0], "grpo": [1.0, 0.25], "grpo without picture": [0.0, 0.0]}
    cards = answered(volume_root, rewards, ["base", "sft", "grpo"])
    assert [seen(card, "h4") for card in cards] == [["Which <shape>?"]] * 2
    assert [seen(card, "p") for card in cards] == [
        ["v0 · shape · most improved (+1.00)"],
        ["v1 · shape · worst answer"],
    ]
    assert seen(cards[0], "dt") == ["Truth", "base", "sft", "grpo", "grpo without picture"]
    assert seen(cards[0], "dd") == [
        "amphora",
        f"✗ wrong 0.00 · {NASTY} 0",
        f"~ partly right 0.50 · {NASTY} 0",
        f"✓ right 1.00 · {NASTY} 0",
        f"✗ wrong 0.00 · {NASTY} 0",
    ]
    assert ["data:image/jpeg" in card for card in cards] == [True, False]  # a path out of the volume shows nothing


def test_of_many_questions_the_most_improved_the_worst_and_a_sample_are_shown(volume_root: Path) -> None:
    rewards = {"base": [0.0] * 50 + [1.0] * 50, "grpo": [1.0] * 10 + [0.5] * 85 + [0.0] * 5}
    cards = answered(volume_root, rewards, ["base", "grpo"])
    reasons = [re.sub(r" \(.*", "", seen(card, "p")[0].split(" · ")[2]) for card in cards]
    assert reasons == ["most improved"] * 6 + ["worst answer"] * 6 + ["sample"] * 12
    vases = [int(seen(card, "p")[0].split(" · ")[0][1:]) for card in cards]
    assert vases[:11] == [*range(6), *range(95, 100)]
    assert len(set(vases)) == len(vases)


def test_an_evaluation_without_recorded_answers_has_no_cards(volume_root: Path) -> None:
    run = curated(
        volume_root, {"evaluate/evaluation.json": {"samples": 1, "models": {"sft": {"rewards": {"value": 1.0}}}}}
    )
    assert "<article" not in write_report(run, Volume(volume_root)).read_text()
    (volume_root / "artifacts/evaluate/k/answers.csv").write_text("damaged,table\n1,2\n")
    assert "<article" not in write_report(run, Volume(volume_root)).read_text()
