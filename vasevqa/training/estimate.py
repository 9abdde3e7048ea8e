"""How much memory a training needs on a GPU, and how much disk its checkpoints take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vasevqa.models import Model

GB = 10**9
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def gpu_bytes(kind: str, model: Model, settings: Mapping[str, Any], batch: int, checkpointing: bool) -> int:
    """An estimate of one GPU's peak memory in bytes, without sharing between GPUs.

    Weights, gradients and Adam's two moments (of the adapter, or of all parameters), the activations that are kept
    (with checkpointing one hidden state a layer, and one layer in full), the logits and their gradient in float32, and
    1.5 GB for CUDA itself; after Rajbhandari et al., "ZeRO", 2020, section 3, and Korthikanti et al., "Reducing
    Activation Recomputation", 2022, section 4. GRPO keeps logits of the answer only, but a cache of keys and values
    while it generates.
    """
    unit = _BYTES[settings["torch_dtype"]]
    trained = model.adapter_per_rank * settings["lora_rank"] if settings["tuner_type"] == "lora" else model.parameters
    static = model.parameters * unit + trained * (4 + 8 + (4 if settings["tuner_type"] == "lora" else 0))
    length = settings["max_length"]
    hidden_state = batch * length * model.hidden * unit
    layer = batch * length * (10 * model.hidden + 3 * model.intermediate) * unit
    activations = model.layers * hidden_state + layer if checkpointing else model.layers * layer
    scored = settings.get("max_completion_length", length) if kind == "grpo" else length
    logits = batch * scored * model.vocabulary * (unit + 4 + 4)
    cache = settings.get("num_generations", 0) * length * model.layers * model.hidden * unit
    copies = (
        model.parameters * unit
        if kind == "grpo" and (settings.get("use_vllm") or settings["tuner_type"] == "full")
        else 0
    )
    return int(static + activations + logits + cache + copies + 1.5 * GB)


def checkpoint_bytes(model: Model, settings: Mapping[str, Any]) -> int:
    """Bytes of one checkpoint: weights and Adam's moments of what is trained, in float32 for an adapter."""
    if settings["tuner_type"] == "lora":
        return model.adapter_per_rank * settings["lora_rank"] * 12 + 20_000_000
    return model.parameters * (_BYTES[settings["torch_dtype"]] + 8) + 20_000_000
