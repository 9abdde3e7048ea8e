"""Estimate how much GPU memory a training needs, and how much disk space its checkpoints take."""

from __future__ import annotations

from vasevqa.models import Model
from vasevqa.training.params import GrpoParams, TrainingParams

GB = 10**9
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def gpu_bytes(model: Model, params: TrainingParams, batch: int, checkpointing: bool) -> int:
    """Return an estimate of one GPU's peak memory in bytes.

    The estimate assumes that each GPU holds the whole model and the whole optimizer. It is the sum of these parts:
    - the weights of the model, and of the adapter if there is one
    - a second copy of the model's weights, if GRPO uses vLLM or trains all weights
    - the gradients and Adam's two moments of the trained weights
    - the activations of all layers; if `checkpointing` is True, only the activations of one layer, and the hidden
      state of each layer
    - the logits, their float32 copy and their gradient; for GRPO, only the logits of the answer
    - for GRPO, the cache of keys and values during generation
    - 1.5 GB for CUDA itself

    The formulas follow Rajbhandari et al., "ZeRO", 2020, section 3, and Korthikanti et al., "Reducing Activation
    Recomputation", 2022, section 4.
    """
    unit = _BYTES[params.torch_dtype]
    trained = model.adapter_per_rank * params.lora_rank if params.tuner_type == "lora" else model.parameters
    static = model.parameters * unit + trained * (4 + 8 + (4 if params.tuner_type == "lora" else 0))
    length = params.max_length
    hidden_state = batch * length * model.hidden * unit
    layer = batch * length * (10 * model.hidden + 3 * model.intermediate) * unit
    activations = model.layers * hidden_state + layer if checkpointing else model.layers * layer
    scored, cache, copies = length, 0, 0
    if isinstance(params, GrpoParams):
        scored = params.max_completion_length
        cache = params.num_generations * length * model.layers * model.hidden * unit
        copies = model.parameters * unit if params.use_vllm or params.tuner_type == "full" else 0
    logits = batch * scored * model.vocabulary * (unit + 4 + 4)
    return int(static + activations + logits + cache + copies + 1.5 * GB)


def checkpoint_bytes(model: Model, params: TrainingParams) -> int:
    """Return the size of one checkpoint in bytes.

    A checkpoint holds the trained weights and Adam's two moments of these weights. For an adapter, the weights and the
    moments are in float32.
    """
    if params.tuner_type == "lora":
        return model.adapter_per_rank * params.lora_rank * 12 + 20_000_000
    return model.parameters * (_BYTES[params.torch_dtype] + 8) + 20_000_000
