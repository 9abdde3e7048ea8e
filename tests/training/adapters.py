"""Adapters for the tiny model, written by peft, and their merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.spec import StageCall
from vasevqa.stages import merge

LANGUAGE = r"^model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$"
TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TARGET = "model.layers.1.self_attn.k_proj.weight"
HALF = 0.1  # the size of B: large enough to change every weight, even in bfloat16


def make_adapter(base: Path, folder: Path, size: float = HALF, **settings: Any) -> Path:
    """Write an adapter with peft. Its matrix B is random."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(7)
    given: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": LANGUAGE, "task_type": "CAUSAL_LM"}
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), LoraConfig(**given | settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name or (parameter.requires_grad and name.endswith("bias")):
                parameter.add_(torch.randn_like(parameter), alpha=size)
            if "magnitude" in name:
                parameter.mul_(1.25)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def run(base: Path, adapter: Path, output: Path, **params: Any) -> tuple[dict[str, Any], RecordingProgress]:
    progress = RecordingProgress()
    call = StageCall(
        merge.MergeParams(**params),
        merge.MergeOptions(device="cpu"),
        {"model": base, "adapters": adapter},
        FolderOutput(output),
        progress,
    )
    merge.run(call)
    return json.loads((output / "merge_report.json").read_text()), progress
