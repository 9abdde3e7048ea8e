"""What can be known before minutes of loading: is the model whole, is the dataset readable, do memory and disk suffice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DataError, StorageError
from vasevqa.training.checkpoints import INDEX, WEIGHTS, free_below, safetensors_header

GB = 10**9


@dataclass(frozen=True)
class Model:
    """A model folder's shape: parameters in all, those that `all-linear` LoRA adds per rank, and the sizes that decide activations."""

    parameters: int
    adapter_per_rank: int
    hidden: int
    layers: int
    vocabulary: int
    intermediate: int


def check_model(folder: Path) -> Model:
    """Read the folder's configuration and the headers of its weights; ConfigError or DataError says what is missing."""
    config = _json(folder / "config.json", "a Hugging Face model folder has one")
    if (folder / INDEX).is_file():
        weights = _json(folder / INDEX, "copy it again").get("weight_map", {})
        shards = sorted({str(name) for name in weights.values()})
        gone = [name for name in shards if not (folder / name).is_file()]
        if gone:
            raise DataError(f"{folder} lacks {len(gone)} of its {len(shards)} shards of weights ({gone[0]}); copy the model again.")
    elif (folder / WEIGHTS).is_file():
        shards = [WEIGHTS]
    else:
        raise DataError(f"{folder} holds no weights ({WEIGHTS} or {INDEX}); copy the whole model folder.")
    tensors = {name: entry for shard in shards for name, entry in safetensors_header(folder / shard).items()}
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise DataError(f"{folder} holds no tokenizer (tokenizer.json or vocab.json); copy the whole model folder.")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise DataError(f"{folder} holds no image processor (preprocessor_config.json); give a vision-language model, whole.")
    text = config.get("text_config") or config
    shapes = {name: entry["shape"] for name, entry in tensors.items()}
    linear = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith("proj.weight") and not any(part in name for part in ("visual", "vision", "embed", "lm_head"))
    ]
    return Model(
        parameters=sum(_product(shape) for shape in shapes.values()),
        adapter_per_rank=sum(sum(shape) for shape in linear),
        hidden=int(text.get("hidden_size", 0)),
        layers=int(text.get("num_hidden_layers", 0)),
        vocabulary=int(text.get("vocab_size", config.get("vocab_size", 0))),
        intermediate=int(text.get("intermediate_size", 0)),
    )


def _product(shape: list[int]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result


def _json(path: Path, hint: str) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no {path.name} in {path.parent}; {hint}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); copy it again.") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds no JSON object; copy it again.")
    return loaded


def image_root(dataset: Path, given: str | None) -> Path:
    """The folder that the rows' image paths are relative to: as given, else as dataset_report.json says, else the dataset's own."""
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise ConfigError(f"--image-root: there is no folder {given}.")
        return root.absolute()
    report = dataset / "dataset_report.json"
    noted = json.loads(report.read_text(encoding="utf-8")).get("image_root", ".") if report.is_file() else "."
    return Path(os.path.normpath(dataset.absolute() / noted))


def check_rows(path: Path, root: Path, wanted: str | None = None) -> int:
    """The number of rows of a JSON-lines dataset, after reading each; DataError names the first line that won't do.

    Every row needs `messages` (or ShareGPT's conversations, or query and response) and, with `wanted`, that column; its images must exist.
    """
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    count = 0
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where} is not valid JSON ({error}); build the dataset again.") from None
            if not isinstance(row, dict) or not (row.get("messages") or row.get("conversations") or (row.get("query") and row.get("response"))):
                raise DataError(f"{where} holds neither messages nor conversations nor query and response; ms-swift would drop it.")
            if wanted and not row.get(wanted):
                raise DataError(f"{where} has no '{wanted}', which the reward compares answers with; build the dataset again.")
            images = row.get("images") or []
            for image in [images] if isinstance(images, str) else images:
                if not (root / str(image)).is_file():
                    raise DataError(f"{where} names the image {image}, which is not in {root}; build the dataset again or give --image-root.")
            count += 1
    if not count:
        raise DataError(f"{path} holds no rows; see dataset_report.json beside it for what was left out.")
    return count


_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def gpu_bytes(kind: str, model: Model, settings: Mapping[str, Any], batch: int, checkpointing: bool) -> int:
    """An estimate of one GPU's peak memory in bytes, without sharing between GPUs.

    Weights, gradients and Adam's two moments (of the adapter, or of all parameters), the activations that are kept (with
    checkpointing one hidden state a layer, and one layer in full), the logits and their gradient in float32, and 1.5 GB
    for CUDA itself; after Rajbhandari et al., "ZeRO", 2020, section 3, and Korthikanti et al., "Reducing Activation
    Recomputation", 2022, section 4. GRPO keeps logits of the answer only, but a cache of keys and values while it generates.
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
    copies = model.parameters * unit if kind == "grpo" and (settings.get("use_vllm") or settings["tuner_type"] == "full") else 0
    return int(static + activations + logits + cache + copies + 1.5 * GB)


def checkpoint_bytes(model: Model, settings: Mapping[str, Any]) -> int:
    """Bytes of one checkpoint: weights and Adam's moments of what is trained, in float32 for an adapter."""
    if settings["tuner_type"] == "lora":
        return model.adapter_per_rank * settings["lora_rank"] * 12 + 20_000_000
    return model.parameters * (_BYTES[settings["torch_dtype"]] + 8) + 20_000_000


def check_disk(folder: Path, model: Model, settings: Mapping[str, Any]) -> None:
    """StorageError if the checkpoints that are kept (and the one being written) don't fit."""
    need, free = checkpoint_bytes(model, settings) * (settings["save_total_limit"] + 1), free_below(folder)
    if free < need:
        raise StorageError(
            f"The disk of {folder} has {free / GB:.1f} GB free and {settings['save_total_limit']} checkpoints need {need / GB:.1f} GB; "
            "free some space or lower save_total_limit."
        )
