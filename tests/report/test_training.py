"""The report shows how models were trained, and how they answer."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from tests.report.kit import NASTY, curated, section, seen
from vasevqa.artifacts.volume import Volume
from vasevqa.pipeline.events import EventLog
from vasevqa.report.charts import ticks
from vasevqa.report.html import write_report

GROUPS = {"frac_reward_zero_std": 0.25, "completions/clipped_ratio": 0.5, "rewards/external_vase_acc/mean": 0.4}


def test_the_report_shows_curves_merges_and_answers(volume_root: Path) -> None:
    run = volume_root / "runs/20260101-000000-demo-abcd"
    (run / "steps").mkdir(parents=True)
    log = EventLog(run / "events.jsonl")
    log.append("run-started", steps=["sft", "merge-sft", "grpo", "evaluate"], skipped={})
    for step, rows in (
        ("sft", [{"loss": 8.5}, {"loss": 3.25}, {"eval_loss": 3.5}]),
        ("grpo", [{**GROUPS, "reward": 0.125, "reward_std": 0.1}, {**GROUPS, "reward": 0.75, "reward_std": 0.2}]),
    ):
        training = volume_root / f"artifacts/{step}/k/training"
        training.mkdir(parents=True)
        lines = [json.dumps({**row, "global_step/max_steps": f"{number}/9"}) for number, row in enumerate(rows, 1)]
        (training / "logging.jsonl").write_text("\n".join([*lines, json.dumps({**rows[-1], "loss": 99}), "{half"]))
        (run / "steps" / step).symlink_to(training.parent)
    answers = {
        "step": ["1", "1"],
        "prompt": ["<|im_start|>user\n<image>Which shape?<|im_end|>"] * 2,
        "completion": ["krater", NASTY],
        "solution": ["krater"] * 2,
        "VaseAccuracy": [1.0, 0.0],
    }
    (volume_root / "artifacts/grpo/k/training/completions.jsonl").write_text(json.dumps(answers) + "\n{half")
    merge = volume_root / "artifacts/merge-sft/k"
    merge.mkdir(parents=True)
    (merge / "merge_report.json").write_text(
        '{"agreement": 0.995, "max_difference": 0.0001, "checkpoint": "checkpoint-9", "torch_dtype": "bfloat16"}'
    )
    (run / "steps/merge-sft").symlink_to(merge)
    evaluation = volume_root / "artifacts/evaluate/k"
    evaluation.mkdir(parents=True)
    measured = {
        "rewards": {"value": 0.4567, "interval": [0.4, 0.5]},
        "attributes": {},
        "captions": {"overall": {"value": None, "reason": "needs a model"}},
    }
    (evaluation / "evaluation.json").write_text(
        json.dumps({"samples": 7, "models": {"sft": measured}, "same": {"grpo": "sft"}})
    )
    (run / "steps/evaluate").symlink_to(evaluation)
    html = write_report(run, Volume(volume_root)).read_text()
    assert html.count("<polyline") == 5
    assert "Reward: external_vase_acc <small" in html
    assert "mean reward: 0.125" in html
    assert "share of groups without a signal (all answers have the same reward): 0.25" in html
    assert "share of answers cut at max_completion_length: 0.5" in html
    cells = [f'<td class="num">{cell}</td>' for cell in ("2", "1.000", "0.000")]
    assert f"<tr><td>shape</td>{''.join(cells)}</tr>" in html
    for text in ("0.457 [0.400, 0.500]", "not available: needs a model", "grpo is the same model as sft"):
        assert text in html
    for text in ("8.5 → 3.25", "0.125 → 0.75", "99.50%", "Which shape?", "VaseAccuracy 1.00", "&lt;script&gt;"):
        assert text in html
    assert NASTY not in html


def test_charts_have_axes_units_and_marks_where_the_training_resumed(volume_root: Path) -> None:
    run = curated(volume_root, {"sft/training_summary.json": {"attempts": [{"from_step": 0}, {"from_step": 40}]}})
    log = [
        {"loss": 10 - step / 20, "global_step/max_steps": f"{step}/100", **({"eval_loss": 6.5} if step == 90 else {})}
        for step in range(10, 101, 10)
    ]
    (volume_root / "artifacts/sft/k/training").mkdir()
    (volume_root / "artifacts/sft/k/training/logging.jsonl").write_text(
        "\n".join([*map(json.dumps, log), '{"loss": NaN, "global_step/max_steps": "95/100"}'])
    )
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    assert seen(shown, "h4") == ["Loss (nats per token)"]
    assert seen(shown, "text") == ["4", "6", "8", "10", "10", "25", "50", "75", "100", "training step"]
    assert seen(shown, "title") == ["resumed from step 40"]
    assert shown.count("<polyline") == 1
    assert shown.count("<circle") == 1  # the only validation
    assert seen(shown, "figcaption") == [
        "training loss: 9.5 → 5 (between 5 and 9.5) validation loss: 6.5 resumed from step 40"
        " training loss: 1 of 11 values is not finite and not drawn (step 95)"
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (3, 3, [3, 4]), (0, 0, [0, 0.25]), (-0.3, 14.2, [-5, 0, 5, 10, 15])],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_the_rewards_of_grpo_are_shown_apart_by_function_and_by_attribute(volume_root: Path) -> None:
    run = curated(volume_root, {"grpo/training/summary.json": {}})
    rewards = {"rewards/accuracy/mean": 0.5, "rewards/format/mean": 0.25, "kl": 0.01}
    log = [{"reward": 0.75, **rewards, "global_step/max_steps": f"{step}/2"} for step in (1, 2)]
    training = volume_root / "artifacts/grpo/k/training"
    (training / "logging.jsonl").write_text("\n".join(map(json.dumps, log)))
    batches = [
        {
            "step": [step, step],
            "prompt": [f"<|im_start|>user\n{asked}<|im_end|>" for asked in ("Which shape?", "Which technique?")],
            "completion": ["a", "b"],
            "accuracy": [step / 4, 1.0],
        }
        for step in (1, 2)
    ]
    (training / "completions.jsonl").write_text("\n".join(map(json.dumps, batches)))
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    assert seen(shown, "h4") == [
        "Reward: sum of accuracy and format; the weights are not recorded (points)",
        "Rewards apart, without weights (points)",
        "Reward by attribute (points)",
        "Distance from the model before GRPO (nats)",
    ]
    captions = seen(shown, "figcaption")
    assert captions[0].startswith("mean reward: 0.75")
    assert "format: 0.25 → 0.25" in captions[1]
    assert "shape: 0.25 → 0.5" in captions[2]


def test_the_evaluation_shows_intervals_baselines_and_the_sentences_beside_them(volume_root: Path) -> None:
    def model(value: float) -> dict[str, object]:
        metric = {"value": value, "interval": [value - 0.1, value + 0.1], "samples": 90, "vases": 30}
        exact = {**metric, "value": 0.125, "chance": 0.2}
        return {"rewards": metric, "attributes": {"shape": {"exact": exact, "reward": {**metric, "chance": 0.2}}}}

    def pair(model: str, other: str, attribute: str, shown: bool) -> dict[str, object]:
        prefix = f"{attribute}: " if attribute else ""
        return {
            "model": model,
            "other": other,
            "attribute": attribute,
            "shown": shown,
            "sentence": f"{prefix}{model} > {other}",
        }

    evaluation = {
        "samples": 90,
        "vases": 30,
        "models": {"base": model(0.2), "<sft>": model(0.8)},
        "baselines": {"majority": model(0.3), "<sft> without picture": model(0.95)},
        "pairs": [
            pair("<sft>", "base", "", False),
            pair("<sft>", "base", "shape", True),
            pair("<sft>", "<sft> without picture", "shape", False),
        ],
    }
    run = curated(volume_root, {"evaluate/evaluation.json": evaluation})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    plots = re.findall(r'<figure class="plot">(.*?)</figure>', shown, flags=re.DOTALL)
    assert [seen(plot, "h3") for plot in plots] == [
        ["mean reward 90 rows of 30 vases"],
        ["shape: mean reward 90 rows of 30 vases"],
    ]
    assert seen(plots[0], "li")[:4] == [
        "base 0.200 [0.100, 0.300]",
        "<sft> 0.800 [0.700, 0.900]",
        "majority 0.300 [0.200, 0.400]",
        "<sft> without picture 0.950 [0.850, 1.050]",
    ]
    assert 'class="range" style="left: 70.0%; width: 20.0%"' in plots[0]
    assert 'class="range" style="left: 85.0%; width: 15.0%"' in plots[0]  # the axis ends at 1
    assert seen(plots[0], "li")[-1] == "<sft> > base."
    assert seen(plots[1], "li")[-1] == "<sft> > base."
    assert plots[0].count("chance") == 0
    assert 'class="chance" style="left: 20.0%" title="random guesses: 0.200"' in plots[1]
    assert "A vertical mark is the expected value of random guesses." in seen(shown, "p")[0]
    assert "Differences by attribute that are not significant: 1." in shown
    assert "0.125 [0.100, 0.300]" in seen(shown, "td")


def test_the_mistakes_of_the_last_model_show_what_is_taken_for_what_and_the_worst_answers(volume_root: Path) -> None:
    found = {
        "confusion": {"shape": {"amphora": {"amphora": 6, "hydria": 4}, "<kylix>": {"(nothing known)": 1}}},
        "classes": {"shape": {"amphora": {"exact": 0.6, "interval": [0.31, 0.83], "rows": 10, "vases": 9}}},
        "kinds": {"shape": {"right": 6, "wrong class": 5, "hedged": 3}},
        "worst": [{"vase": "v1", "attribute": "", "truth": "a", "answer": NASTY, "reward": 0.25}],
    }
    rewards = {"rewards": {"value": 0.5}}
    models = {"base": {**rewards, "mistakes": found}, "sft": {**rewards, "mistakes": found}, "grpo": rewards}
    run = curated(volume_root, {"evaluate/evaluation.json": {"samples": 1, "models": models}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    assert "Mistakes of sft" in seen(shown, "h3")
    table = shown.split('class="confusion"')[1].split("</table>")[0]
    assert seen(table, "th") == [
        *("Truth", "Right", "Vases", "amphora", "<kylix>", "(nothing known)", "hydria"),
        *("amphora", "<kylix>"),
    ]
    assert "shape: what is taken for what (11 rows)" in seen(shown, "summary")
    assert (
        "Each cell counts rows. Right is the share of right answers, with its 95% interval by vase."
        " Rows that are left out, because their truth names no known class or several: 3."
    ) in seen(shown, "p")
    assert seen(table, "td") == [*("0.60 [0.31, 0.83]", "9", "6", "", "", "4"), *("", "", "", "", "1", "")]
    assert seen(shown, "td")[-5:] == ["v1", "a conversation", "a", NASTY, "0.25"]
    damaged = {"samples": 1, "models": {"sft": {**rewards, "mistakes": {"confusion": 7}}}}
    (volume_root / "artifacts/evaluate/k/evaluation.json").write_text(json.dumps(damaged))
    assert "Mistakes of" not in write_report(run, Volume(volume_root)).read_text()


def test_a_difference_is_told_beside_the_metric_that_it_compares_and_never_vanishes(volume_root: Path) -> None:
    def model(value: float) -> dict[str, object]:
        metric = {"value": value, "samples": 9, "vases": 9}
        return {"rewards": metric, "common_rewards": metric, "captions": {"overall": metric}}

    told = {"model": "sft", "other": "base", "attribute": "", "shown": True, "sentence": "sft - base = +0.600"}
    models = {"base": model(0.2), "sft": model(0.8)}
    evaluation = {"samples": 10, "models": models, "pairs": [told]}
    run = curated(volume_root, {"evaluate/evaluation.json": evaluation})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    plots = re.findall(r'<figure class="plot">(.*?)</figure>', shown, flags=re.DOTALL)
    assert [(seen(plot, "h3")[0], seen(plot, "li")[3:]) for plot in plots] == [
        ("mean reward 9 rows of 9 vases", ["sft - base = +0.600."]),
        (
            "mean reward on common rows 9 rows of 9 vases",
            ["Differences between models are tested on all rows, not on these."],
        ),
        (
            "captions: overall 9 rows of 9 vases",
            ["Differences between models in this metric are not tested."],
        ),
    ]
    for figures in models.values():
        del figures["rewards"]
    (volume_root / "artifacts/evaluate/k/evaluation.json").write_text(json.dumps(evaluation))
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    assert seen(shown, "li")[0] == "sft - base = +0.600."


def test_a_metric_that_one_model_lacks_is_shown_for_the_others_with_their_own_counts(volume_root: Path) -> None:
    lacking = {"value": None, "reason": "no <samples>", "samples": 0, "vases": 0}
    models = {
        "base": {"rewards": lacking, "captions": {"overall": lacking, "bleu": lacking}},
        "sft": {
            "rewards": {"value": 0.5, "samples": 9000, "vases": 30},
            "captions": {"overall": {"value": 0.25, "samples": 3, "vases": 2}, "bleu": lacking},
        },
        "grpo": {"rewards": {"value": 0.75, "samples": 9000, "vases": 30, "chance": 0.125}},
        "other": {"captions": {"overall": {"value": 0.5, "samples": 4, "vases": 2}}},
    }
    run = curated(volume_root, {"evaluate/evaluation.json": {"samples": 9, "models": models}})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    assert seen(shown, "td") == [
        *("mean reward", "- (no <samples>)", "0.500", "0.750", "-", "9,000 rows of 30 vases", "0.125"),
        *("captions: overall", "- (no <samples>)", "0.250", "-", "0.500"),
        *("sft: 3 rows of 2 vases; other: 4 rows of 2 vases", ""),
        *("captions: bleu", "not available: no <samples>"),
    ]
    assert seen(shown, "h3") == [
        "mean reward 9,000 rows of 30 vases",
        "captions: overall sft: 3 rows of 2 vases; other: 4 rows of 2 vases",
    ]
    (volume_root / "artifacts/evaluate/k/evaluation.json").write_text(
        json.dumps({"samples": 9, "models": {"base": {"rewards": lacking}}})
    )
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    assert seen(shown, "td") == ["mean reward", "not available: no <samples>"]


def test_the_reward_chart_and_the_rewards_by_attribute_are_weighted_as_in_the_training(volume_root: Path) -> None:
    params = {"reward_funcs": ["external_vase_acc", "format"], "reward_weights": [0.75, 0.25]}
    run = curated(volume_root, {"grpo/artifact.json": {"key": "k", "params": params}})
    training = volume_root / "artifacts/grpo/k/training"
    training.mkdir()
    means = {"rewards/VaseAccuracy/mean": 0.5, "rewards/Format/mean": 1.0}
    log = [{"reward": 0.625, **means, "global_step/max_steps": f"{step}/2"} for step in (1, 2)]
    (training / "logging.jsonl").write_text("\n".join(map(json.dumps, log)))
    batch = {
        "prompt": ["<|im_start|>user\nWhich shape?<|im_end|>"] * 2,
        "completion": ["a", "b\u2028c"],
        "VaseAccuracy": [0.5, 0.5],
        "Format": [1.0, math.nan],  # the second reward doesn't apply to the second answer
        "advantages": [0.1, -0.1],
        "entropy": [9.0, 9.0],
        "solution": [450, 450],
        "num_turns": [1, 1],
    }
    lines = [json.dumps({"step": [step] * 2, **batch}, ensure_ascii=False) for step in ("1", "2")]
    (training / "completions.jsonl").write_text("\n".join(lines))
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    formula = "0.75 × VaseAccuracy + 0.25 × Format"
    assert seen(shown, "h4")[:2] == [f"Reward: {formula} (points)", "Rewards apart, without weights (points)"]
    assert f"Mean reward of the answers that the training sampled ({formula})." in seen(shown, "p")[0]
    assert seen(shown, "td")[:4] == ["shape", "4", "0.500", "0.500"]  # the mean of 0.625 and 0.375
    assert "VaseAccuracy 0.50, Format -" in seen(shown, "td")
    (volume_root / "artifacts/grpo/k/artifact.json").write_text(
        json.dumps({"key": "k", "params": {**params, "reward_weights": None}})
    )
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    assert seen(shown, "h4")[0] == "Reward: VaseAccuracy + Format, each with weight 1 (points)"


def test_a_figure_and_a_difference_of_too_few_vases_say_so(volume_root: Path) -> None:
    few = {"value": 0.5, "interval": None, "no_interval": "too few vases", "samples": 1234, "vases": 3}
    pairs = [
        {"model": "b", "other": "a", "attribute": attribute, "shown": False, "interval": interval, "sentence": "x"}
        for attribute, interval in (("shape", None), ("date", None), ("fabric", [-0.1, 0.1]))
    ]
    evaluation = {"samples": 1234, "vases": 3, "models": {"a": {"rewards": few}}, "pairs": pairs}
    run = curated(volume_root, {"evaluate/evaluation.json": evaluation})
    shown = section(write_report(run, Volume(volume_root)).read_text(), "evaluation")
    assert seen(shown, "li")[0] == "a 0.500 (too few)"
    assert seen(shown, "p") == [
        "1,234 held-out rows of 3 vases. A dot is a mean, and its line is the 95% interval by vase."
        " Too few: with fewer than 8 vases there is no interval.",
        "Differences by attribute that are not significant: 1.",
        "Differences by attribute with too few vases for a test: 2.",
    ]


def test_rows_left_out_of_a_training_stand_beside_all_rows_and_long_answers_end_in_an_ellipsis(
    volume_root: Path,
) -> None:
    report = {"rows": {"sft": 6000, "val": 9}}
    run = curated(volume_root, {"build-dataset/dataset_report.json": report, "sft/x.json": {}, "grpo/x.json": {}})
    table = "file,line,why,length\nsft.jsonl,7,too long,5000\nother.jsonl,1,broken,\n"
    (volume_root / "artifacts/sft/k/dropped_rows.csv").write_text(table)
    long = {"step": ["1"], "prompt": ["<|im_start|>user\n" + "Which shape? " * 40], "completion": ["a" * 500]}
    (volume_root / "artifacts/grpo/k/training").mkdir()
    (volume_root / "artifacts/grpo/k/training/completions.jsonl").write_text(json.dumps({**long, "acc": [1.0]}))
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    cells = seen(shown, "td")
    assert cells[:6] == ["sft", "sft.jsonl", "6,000", "1", "0", "line 7: too long"]
    assert cells[6:9] == ["sft", "other.jsonl", ""]
    assert "a" * 399 + "…" in cells
    assert any(cell.startswith("Which shape?") and cell.endswith("…") and len(cell) <= 200 for cell in cells)


def test_each_attribute_has_a_line_of_its_own_style_and_own_questions_are_recognized(volume_root: Path) -> None:
    run = curated(volume_root, {"grpo/artifact.json": {"key": "k"}})
    (volume_root / "questions.yaml").write_text('fabric: ["Whose clay?"]\nshape: ["What pot?"]\n')
    (run / "recipe.yaml").write_text(f"inputs: {{questions: {volume_root / 'questions.yaml'}}}\n")
    asked = ("Whose clay?", "What pot?", "Hello?", "Which technique?", "Which date?", "Where was it found?")
    batches = [
        {
            "step": [step] * len(asked),
            "prompt": [f"<|im_start|>user\n{question}<|im_end|>" for question in asked],
            "completion": ["a"] * len(asked),
            "acc": [0.5] * len(asked),
        }
        for step in ("1", "2")
    ]
    training = volume_root / "artifacts/grpo/k/training"
    training.mkdir()
    (training / "completions.jsonl").write_text("\n".join(map(json.dumps, batches)))
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    names = ["date", "fabric", "other questions", "provenance", "shape", "technique"]
    assert [cell for cell in seen(shown, "td") if cell in names] == names
    styles = re.findall(r'<polyline class="curve (s\d)"', shown)
    assert styles == re.findall(r'<span class="key (s\d)">', shown)
    assert len(set(styles)) == len(names)


def test_a_file_of_answers_that_is_too_large_is_not_passed_over_in_silence(volume_root: Path) -> None:
    run = curated(volume_root, {"grpo/artifact.json": {"key": "k"}})
    training = volume_root / "artifacts/grpo/k/training"
    training.mkdir()
    with (training / "completions.jsonl").open("wb") as stream:
        stream.truncate(80 << 20)
    shown = section(write_report(run, Volume(volume_root)).read_text(), "training")
    assert seen(shown, "p") == [
        "No answers of GRPO are shown: completions.jsonl in the step's training/ has 80 MiB, and a report reads at most"
        " 64 MiB."
    ]
