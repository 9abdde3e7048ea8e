"""A run with every section of the report: photographs, training, evaluation, costs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests import pictures
from tests.report.kit import NASTY, curated

SCORES = [round(0.02 + 0.013 * number, 4) for number in range(36)]  # of photographs of 12 vases
THRESHOLD = 0.2
MODELS = ("base", "sft", "grpo", "grpo without picture")
QUESTIONS = {"shape": "What shape is this vase?", "fabric": "Which fabric is it made of?", "date": "When was it made?"}
TRUE = {"shape": "Amphora of Panathenaic type", "fabric": "Attic", "date": "550 - 500 BC"}
FALSE = {"shape": "a krater, perhaps", "fabric": "Corinthian", "date": "about 300 BC"}
LONG = "The vase shows two youths who are wrestling in front of a column; the reverse shows Athena " * 3


def rich(volume_root: Path) -> Path:
    """Make a finished run with results of every step, and return its folder."""
    run = curated(volume_root, {**_curation(), **_training(), "evaluate/evaluation.json": _evaluation()})
    _photographs(volume_root / "artifacts")
    _answers(volume_root)
    for step in ("sft", "grpo"):
        folder = volume_root / "artifacts" / step / "k/training"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logging.jsonl").write_text("\n".join(json.dumps(row) for row in _log(step)))
    (run / "events.jsonl").write_text("\n".join(json.dumps(event) for event in _events()) + "\n")
    for number, step in enumerate(STEPS):
        used = {"seconds": 60.0 * (number + 1), "cpu_seconds": 90.0 * (number + 1), "memory": (number + 1) << 29}
        gpu = {"gpu": step in ("sft", "grpo"), "gpu_memory": 7 << 30 if step in ("sft", "grpo") else None}
        record = {"key": f"{number}" * 10, "stage": step, "stage_version": 1, "run": run.name, "host": "node-1"}
        more = {"seed": 0, "versions": {"vasevqa": "0.1.0", "torch": "2.14.1"}, "usage": {**used, **gpu}}
        (volume_root / "artifacts" / step / "k/artifact.json").write_text(json.dumps({**record, **more}))
    (run / "recipe.yaml").write_text(
        f"name: demo\ninputs:\n  images: /data/{'a-long-name-of-a-folder/' * 6}photographs\n"
    )
    (run / "calibration-clip-filter.json").write_text(json.dumps(_calibration()))
    return run


STEPS = ("classify", "clip-filter", "select-views", "build-dataset", "sft", "grpo", "evaluate")


def _name(number: int) -> str:
    return f"{number // 3:03}_{number % 3}.jpg"


def _curation() -> dict[str, dict[str, object]]:
    images = [
        {"name": _name(number), "score": score, "accepted": score >= THRESHOLD, "decided_by": "a sherd of a vase"}
        for number, score in enumerate(SCORES)
    ]
    choices = [
        {
            "vase": f"{vase:03}",
            "best": _name(3 * vase),
            "similarity": 0.3,
            "runner_up": _name(3 * vase + 1),
            "margin": vase / 100,
            "views": [{"name": _name(3 * vase + view), "view": str(view), "similarity": 0.3} for view in range(3)],
        }
        for vase in range(5, 12)
    ]
    recommended = [
        {"name": name, "percentile": percentile, "threshold": at, "keeps": 1 - percentile / 100}
        for name, percentile, at in (("lenient", 25, 0.13), ("balanced", 50, 0.25), ("very_strict", 90, 0.43))
    ]
    lost = [{"vase": f"{vase:03}", "lost_at": "clip-filter", "best": _name(3 * vase), "score": 0.1} for vase in (0, 1)]
    return {
        "classify/classification_report.json": {
            "images": 40,
            "high": 36,
            "low": 4,
            "quarantined": [{"name": NASTY, "reason": "the file is cut off"}],
        },
        "clip-filter/filtering_report.json": {
            "threshold": THRESHOLD,
            "threshold_source": "given",
            "images": images,
            "recommendations": recommended,
        },
        "select-views/best_views_report.json": {"vases": choices, "lost": lost},
        "build-dataset/dataset_report.json": {
            "rows": {"sft": 60, "val": 6, "grpo": 50, "eval": 30},
            "vases": {"train": 5, "eval": 2},
            "attributes": {"sft": {"shape": 20, "fabric": 20, "date": 20}},
            "problems": {"empty row": 9},
            "problem_list": {"empty row": [{"where": f"row {row}", "what": "it has neither"} for row in range(9)]},
            "unused_columns": {"inventory number of the collection": 12},
        },
    }


def _training() -> dict[str, dict[str, object]]:
    merged = {"agreement": 0.995, "max_difference": 0.0001, "checkpoint": "checkpoint-9", "torch_dtype": "bfloat16"}
    return {
        "sft/training_summary.json": {"attempts": [{"from_step": 0}, {"from_step": 4}]},
        "merge-sft/merge_report.json": merged,
        "grpo/training_summary.json": {"attempts": [{"from_step": 0}]},
    }


def _log(step: str) -> list[dict[str, object]]:
    rows = []
    for number in range(1, 10):
        figures = {"loss": 4 / number, "learning_rate": 1e-4 / number, "token_acc": number / 10}
        rewards = {
            "reward": number / 10,
            "reward_std": 0.2,
            "kl": 0.001 * number,
            "completions/mean_length": 12 + number,
        }
        shown = figures if step == "sft" else {**rewards, "rewards/VaseAccuracy/mean": number / 10}
        rows.append({**shown, "global_step/max_steps": f"{number}/9"})
    return rows


def _events() -> list[dict[str, object]]:
    asked = {"cpus": 4, "memory": "16Gi", "gpus": 1}
    events: list[dict[str, object]] = [{"event": "run-started", "time": 0, "steps": list(STEPS), "skipped": {}}]
    for number, step in enumerate(STEPS):
        begun = 100 * number
        events += [
            {"event": "step-started", "time": begun, "step": step, "attempt": 1, "resources": asked},
            {"event": "step-running", "time": begun + 10, "step": step},
            {"event": "step-done", "time": begun + 60 + 5 * number, "step": step, "hit": False, "key": "k",
             "summary": f"the summary of {step}, which is a sentence of some words"},
        ]  # fmt: skip
    return [*events, {"event": "run-finished", "time": 100 * len(STEPS)}]


def _calibration() -> dict[str, object]:
    candidates = [
        {
            "threshold": at,
            "precision": {"value": 0.5 + at, "low": 0.4 + at, "high": 0.55 + at},
            "recall": {"value": 1 - at, "low": None, "high": None},
            "labels": 20,
            "vases": 8,
            "testable": True,
            "lost_photographs": int(at * 70),
            "lost_vases": int(at * 20),
        }
        for at in (0.02, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    ]
    return {"question": "intact", "step": "clip-filter", "aim": 0.75, "present": 0.2, "photographs": 36, "vases": 12,
            "labels": 30, "labelled_vases": 10, "unsure": 0, "undrawn": 0, "candidates": candidates, "chosen": 0.3,
            "says": "0.3 is shown to reach a precision of 0.75.", "recipe": None}  # fmt: skip


def _evaluation() -> dict[str, object]:
    def model(value: float) -> dict[str, object]:
        metric = {"value": value, "interval": [value - 0.1, value + 0.1], "samples": 30, "vases": 10, "chance": 0.1}
        return {"rewards": metric, "attributes": {name: {"reward": metric} for name in QUESTIONS}}

    shapes = {"amphora": {"amphora": 6, "krater": 4}, "krater": {"krater": 5, "amphora": 1}}
    worst = [
        {"vase": f"{number:03}", "attribute": "shape", "truth": TRUE["shape"], "answer": LONG, "reward": number / 20}
        for number in range(10)
    ]
    figures = {"shape": {"amphora": {"exact": 0.6, "interval": [0.31, 0.83], "rows": 10, "vases": 9}}}
    mistakes = {"confusion": {"shape": shapes}, "classes": figures, "kinds": {"shape": {"right": 11}}, "worst": worst}
    told = {"model": "grpo", "other": "base", "attribute": "", "value": 0.4, "shown": True,
            "sentence": "grpo - base = +0.400 [0.200, 0.600] on 30 rows of 10 vases"}  # fmt: skip
    return {
        "samples": 30,
        "vases": 10,
        "models": {"base": model(0.3), "sft": model(0.5), "grpo": {**model(0.7), "mistakes": mistakes}},
        "baselines": {"majority": model(0.25), "grpo without picture": model(0.35)},
        "about_baselines": {"majority": "the most common answer of the training rows"},
        "pairs": [told],
    }


def _photographs(artifacts: Path) -> None:
    for number, score in enumerate(SCORES):
        side = "accepted" if score >= THRESHOLD else "rejected"
        picture = pictures.save(artifacts / "clip-filter/k" / side / _name(number), number, (300, 360))
        if number % 3 == 0 and number >= 15:
            chosen = artifacts / "select-views/k/best_views" / _name(number)
            chosen.parent.mkdir(parents=True, exist_ok=True)
            chosen.write_bytes(picture.read_bytes())


def _answers(volume_root: Path) -> None:
    """Write ten held-out vases with three questions each, and the answers of all models."""
    rows, answers = [], []
    for vase in range(10):
        picture = pictures.save(volume_root / f"artifacts/build-dataset/k/images/{vase:03}.jpg", 50 + vase, (300, 360))
        for place, (attribute, question) in enumerate(QUESTIONS.items()):
            asked, truth = f"<image>{question}", TRUE[attribute]
            rows.append(
                {
                    "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": truth}],
                    "images": [f"images/{picture.name}"],
                    "vase_id": f"{vase:03}",
                    "attribute": attribute,
                }
            )
            for strength, model in enumerate(MODELS[:3]):
                reward = min(1.0, 0.5 * (strength + (vase + place) % 3 - 1)) if strength else 0.0
                reward = max(0.0, reward)
                text = truth if reward >= 1 else FALSE[attribute] if vase else NASTY
                answers.append((model, f"{vase:03}", attribute, asked, truth, text, int(reward >= 1), reward, "", ""))
            answers.append((MODELS[3], f"{vase:03}", attribute, asked, truth, FALSE[attribute], 0, 0.0, "", ""))
    folder = volume_root / "artifacts/build-dataset/k"
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (volume_root / "artifacts/evaluate/k/answers.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ("model", "vase", "attribute", "question", "truth", "answer", "exact", "reward", "concept", "concept_uri")
        )
        writer.writerows(answers)
