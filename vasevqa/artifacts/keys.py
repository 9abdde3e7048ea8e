"""The key of an artifact: a digest of all values that decide the artifact's content."""

from __future__ import annotations

from collections.abc import Mapping

from vasevqa import files
from vasevqa.spec import Params, Stage

KEY_LENGTH = 32  # hexadecimal digits: 128 bits of the SHA-256
_TRAINING = """
    tuner_type lora_rank lora_alpha lora_dropout target_modules freeze_vit freeze_aligner num_train_epochs max_steps
    batch_size gradient_accumulation_steps learning_rate warmup_ratio max_length max_pixels torch_dtype model_type
    attn_impl use_liger_kernel logging_steps save_steps save_total_limit seed extra_args
"""
# The parameters of the first version. They are in every key, even with their default values. Never add to this table.
# A later parameter is in the key only if it differs from its default, so a new parameter changes no existing key.
FIRST_PARAMETERS: Mapping[str, frozenset[str]] = {
    stage: frozenset(names.split())
    for stage, names in {
        "train-classifier": """arch weights image_size epochs batch_size learning_rate weight_decay schedule
            warmup_epochs patience augment name_pattern seed""",
        "classify": "confidence_threshold exact_decode",
        "clip-filter": "threshold analyze_only sample_size seed exact_decode precision",
        "select-views": "name_pattern exact_decode precision",
        "build-dataset": """views val_fraction eval_fraction seed hash_distance group_duplicates include_captions
            max_questions name_pattern""",
        "sft": f"{_TRAINING} packing eval_steps",
        "merge": "checkpoint torch_dtype tolerance agreement",
        "grpo": f"""{_TRAINING} num_generations temperature beta max_completion_length reward_funcs reward_weights
            use_vllm""",
        "evaluate": "max_new_tokens max_samples max_pixels torch_dtype engine fuzzy_threshold bootstrap seed",
        "to-megatron": "tolerance agreement",
    }.items()
}


def key_parameters(stage: Stage, params: Params) -> dict[str, object]:
    """Return the parameters that are part of the key, as JSON values."""
    first = FIRST_PARAMETERS.get(stage.name, frozenset())
    values, defaults = params.model_dump(mode="json"), type(params)().model_dump(mode="json")
    return {name: value for name, value in values.items() if name in first or value != defaults[name]}


def artifact_key(stage: Stage, params: Params, inputs: Mapping[str, str]) -> str:
    """Return the key of the artifact of `stage` with `params` and `inputs` (name -> key of the input)."""
    decisive = {
        "stage": stage.name,
        "version": stage.version,
        "params": key_parameters(stage, params),
        "inputs": dict(inputs),
    }
    return files.digest_json(decisive)[:KEY_LENGTH]
