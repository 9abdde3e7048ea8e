"""All steps of the pipeline."""

from __future__ import annotations

from vasevqa.spec import Pipeline, Step
from vasevqa.stages import (
    build_dataset,
    classify,
    clip_filter,
    evaluate,
    grpo,
    merge,
    select_views,
    sft,
    to_megatron,
    train_classifier,
)

PIPELINE = Pipeline(
    (
        Step(
            "train-classifier",
            train_classifier.STAGE,
            {"data": "inputs.quality_data", "weights_file": "inputs.classifier_weights"},
        ),
        Step(
            "classify",
            classify.STAGE,
            {"images": "inputs.images", "model": "train-classifier"},
            passthrough_input="images",
        ),
        Step(
            "clip-filter",
            clip_filter.STAGE,
            {"images": "classify/1", "clip_model": "inputs.clip_model", "prompts": "inputs.prompts"},
            passthrough_input="images",
        ),
        Step(
            "select-views",
            select_views.STAGE,
            {"images": "clip-filter", "clip_model": "inputs.clip_model", "classified": "classify"},
            passthrough_input="images",
        ),
        Step(
            "build-dataset",
            build_dataset.STAGE,
            {
                "images": "select-views",
                "annotations": "inputs.annotations",
                "accepted": "clip-filter",
                "questions": "inputs.questions",
                "splits": "inputs.splits",
            },
        ),
        Step("sft", sft.STAGE, {"model": "inputs.model", "dataset": "build-dataset"}),
        Step("merge-sft", merge.STAGE, {"model": "inputs.model", "adapters": "sft"}),
        Step(
            "grpo",
            grpo.STAGE,
            {
                "model": "merge-sft",
                "dataset": "build-dataset",
                "system": "inputs.system_prompt",
                "plugin": "inputs.reward_plugin",
                "vocabulary": "inputs.vocabulary",
            },
            passthrough_input="model",
        ),
        Step("merge-grpo", merge.STAGE, {"model": "merge-sft", "adapters": "grpo"}, passthrough_input="model"),
        Step(
            "evaluate",
            evaluate.STAGE,
            {
                "dataset": "build-dataset",
                "base": "inputs.model",
                "sft": "merge-sft",
                "grpo": "merge-grpo",
                "clip_model": "inputs.clip_model",
                "sentence_model": "inputs.sentence_model",
                "vocabulary": "inputs.vocabulary",
            },
            passthrough_input="grpo",
        ),
        Step("to-megatron", to_megatron.STAGE, {"model": "merge-grpo"}, passthrough_input="model"),
    )
)
