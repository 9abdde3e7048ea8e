"""Every step of the pipeline, on one screen."""

from __future__ import annotations

from vasevqa.pipeline.spec import Pipeline, Step
from vasevqa.stages import classify, clip_filter, select_views, train_classifier

PIPELINE = Pipeline(
    (
        Step("train-classifier", train_classifier.STAGE, {"data": "inputs.quality_data", "weights_file": "inputs.classifier_weights"}),
        Step("classify", classify.STAGE, {"images": "inputs.images", "model": "train-classifier"}, hands_on="images"),
        Step("clip-filter", clip_filter.STAGE, {"images": "classify/1", "clip_model": "inputs.clip_model", "prompts": "inputs.prompts"}, hands_on="images"),
        Step("select-views", select_views.STAGE, {"images": "clip-filter", "clip_model": "inputs.clip_model", "classified": "classify"}, hands_on="images"),
    )
)
