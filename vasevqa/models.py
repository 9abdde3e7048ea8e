"""Model folders: are they complete, how large are they, and where is the folder of a hub id?"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DataError
from vasevqa.text import first_line

HUB_ID = re.compile(r"(hf-hub:)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: name -> {dtype, shape, data_offsets}.

    Raises DataError if the file is truncated or is no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise ValueError("its header is cut short")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size} bytes of {8 + length + end}")
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise DataError(f"{path} is no complete safetensors file ({error}); copy or train it again.") from None
    return header


@dataclass(frozen=True)
class Model:
    """The sizes of a model.

    They are the number of parameters, the parameters that `all-linear` LoRA adds per rank, and the dimensions that
    decide the size of the activations.
    """

    parameters: int
    adapter_per_rank: int
    hidden: int
    layers: int
    vocabulary: int
    intermediate: int


def check_model(folder: Path) -> Model:
    """Read the configuration and the headers of the weights; ConfigError or DataError says what is missing."""
    config = _json(folder / "config.json", "a Hugging Face model folder has one")
    if (folder / INDEX).is_file():
        weights = _json(folder / INDEX, "copy it again").get("weight_map", {})
        shards = sorted({str(name) for name in weights.values()})
        gone = [name for name in shards if not (folder / name).is_file()]
        if gone:
            raise DataError(
                f"{folder} lacks {len(gone)} of its {len(shards)} shards of weights ({gone[0]}); copy the model again."
            )
    elif (folder / WEIGHTS).is_file():
        shards = [WEIGHTS]
    else:
        raise DataError(f"{folder} holds no weights ({WEIGHTS} or {INDEX}); copy the whole model folder.")
    tensors = {name: entry for shard in shards for name, entry in safetensors_header(folder / shard).items()}
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise DataError(f"{folder} holds no tokenizer (tokenizer.json or vocab.json); copy the whole model folder.")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise DataError(
            f"{folder} holds no image processor (preprocessor_config.json); give a vision-language model, whole."
        )
    text = config.get("text_config") or config
    shapes = {name: entry["shape"] for name, entry in tensors.items()}
    linear = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2
        and name.endswith("proj.weight")
        and not any(part in name for part in ("visual", "vision", "embed", "lm_head"))
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


def local_model(where: Path, hub: str) -> Path:
    """Return the model's folder; download it if `where` is a hub id (org/name or org/name@revision).

    A user who gives a hub id asks for the download. Raises ConfigError if the model can't be found.
    """
    if where.is_dir():
        return where.absolute()
    if where.exists():
        raise ConfigError(f"{where} is a file; give the folder of the model.")
    name, _, revision = str(where).removeprefix("hf-hub:").partition("@")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(
            f"There is no folder {where}, and HF_HUB_OFFLINE=1 forbids asking a hub; give the path of a model folder."
        )
    try:
        if hub == "modelscope":
            from modelscope import snapshot_download as from_modelscope  # type: ignore[import-untyped]

            return Path(from_modelscope(name, revision=revision or None))
        from huggingface_hub import snapshot_download

        ignored = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.msgpack", "*.h5"]
        return Path(snapshot_download(name, revision=revision or None, ignore_patterns=ignored))
    except Exception as error:
        first = first_line(error)
        raise ConfigError(
            f"The hub did not answer for {where} ({type(error).__name__}: {first}); give the path of a model folder, or"
            " check id and network."
        ) from None
