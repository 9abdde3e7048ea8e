"""Check whether a model folder is complete, compute the model's sizes, and download a model from a hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasevqa import model_formats
from vasevqa.errors import ConfigError, DataError, machine_error
from vasevqa.storage import refuse_failed
from vasevqa.text import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HUB_ID = re.compile(r"(hf-hub:)?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
SAMPLE = 256  # bytes that the fingerprint reads at each of two positions in a tensor


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file. It maps each tensor's name to dtype, shape and data_offsets.

    Raise DataError if the file is truncated or is not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size:
                raise ValueError("its header is incomplete")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            _check_entry(name, entry)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size} bytes instead of {8 + length + end}")
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise DataError(
            f"{path} is not a complete safetensors file ({error}); copy the file again, or train the model again."
        ) from None
    return header


def _check_entry(name: str, entry: Any) -> None:
    """Raise ValueError if an entry of a header doesn't describe a tensor."""
    numbers = [*entry["shape"], *entry["data_offsets"]]
    if not isinstance(entry["dtype"], str) or not all(type(number) is int for number in numbers):
        raise ValueError(f"its header has an invalid entry for {name}")


@dataclass(frozen=True)
class Model:
    """The sizes of a model.

    `parameters` is the number of the model's parameters. `adapter_per_rank` is the number of parameters of a LoRA
    adapter of rank 1 for the text model's linear layers. The other fields decide the size of the activations.
    """

    parameters: int
    adapter_per_rank: int
    hidden: int
    layers: int
    vocabulary: int
    intermediate: int


def check_model(folder: Path) -> Model:
    """Read a model's configuration and the headers of its weights, and return the model's sizes.

    Raise ConfigError or DataError if a file is missing, or if the model can't be used. The message gives the reason.
    """
    model_formats.refuse_other_form(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        # transformers would load the adapter's base model instead of the weights in this folder
        raise DataError(
            f"{folder} holds an adapter ({ADAPTER_CONFIG}), but a plain model is needed; merge the adapter into its"
            " base and give the merged model, or move the adapter's files elsewhere."
        )
    config = _json(folder / "config.json", "give a whole Hugging Face model folder")
    model_formats.refuse_no_vision(folder, config)
    model_formats.refuse_unknown_type(folder, config)
    if (folder / INDEX).is_file():
        shards = shards_of(folder)
        gone = [name for name in shards if not (folder / name).is_file()]
        if gone:
            raise DataError(
                f"{folder} lacks {len(gone)} of its {len(shards)} weight files ({gone[0]}); copy the model again."
            )
    elif (folder / WEIGHTS).is_file():
        shards = [WEIGHTS]
    else:
        raise DataError(
            f"{folder} holds no weights ({WEIGHTS} or {INDEX}; pickled weights are never downloaded from a hub); copy"
            " the whole model folder."
        )
    tensors = {name: entry for shard in shards for name, entry in safetensors_header(folder / shard).items()}
    model_formats.refuse_quantized_tensors(folder, {name: str(entry["dtype"]) for name, entry in tensors.items()})
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise DataError(f"{folder} holds no tokenizer (tokenizer.json or vocab.json); copy the whole model folder.")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise DataError(
            f"{folder} holds no image processor (preprocessor_config.json); give the whole folder of a vision-language"
            " model."
        )
    model_formats.refuse_no_chat_template(folder)
    text = config.get("text_config") or config
    if not isinstance(text, dict):
        raise DataError(f"{folder / 'config.json'}: text_config is not a mapping; copy the model again.")
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
        hidden=_size(folder, text, "hidden_size"),
        layers=_size(folder, text, "num_hidden_layers"),
        vocabulary=_size(folder, {**config, **text}, "vocab_size"),
        intermediate=_size(folder, text, "intermediate_size"),
    )


def shards_of(folder: Path) -> list[str]:
    """Return the names of the weight files in a model's index. Raise DataError if the index names no weight file."""
    path = folder / INDEX
    weights = _json(path, "copy the file again").get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise DataError(f"{path}: weight_map is not a mapping from tensors to files; copy the file again.")
    return sorted(set(weights.values()))


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor of a model.

    Raise DataError if it isn't clear which files belong to the model.
    """
    if (folder / INDEX).is_file() and (folder / WEIGHTS).is_file():
        raise DataError(
            f"{folder} holds {WEIGHTS} and {INDEX}, so it isn't clear which weights belong to the model; move one of"
            " the two files elsewhere."
        )
    if (folder / INDEX).is_file():
        shards = shards_of(folder)
    else:
        shards = [WEIGHTS]
    return {name: folder / shard for shard in shards for name in safetensors_header(folder / shard)}


def fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits that identify a model's weights, without reading all weights.

    The digest covers the name, the type, the shape and a few bytes of each tensor. It doesn't depend on how the tensors
    are divided into files.
    """
    files = tensor_files(folder)
    headers = {file: safetensors_header(file) for file in set(files.values())}
    digest = hashlib.sha256()
    for name in sorted(files):
        entry = headers[files[name]][name]
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        with files[name].open("rb") as stream:
            data = 8 + int.from_bytes(stream.read(8), "little")
            for place in (begin, begin + (end - begin) // 2):
                stream.seek(data + place)
                digest.update(stream.read(min(SAMPLE, end - place)))
    return digest.hexdigest()[:16]


def skeleton(folder: Path) -> PreTrainedModel:
    """Return the model that transformers builds from the configuration, without weights (on the device "meta").

    Only the headers of the weight files are read. Raise DataError if a weight is missing, unknown or has a wrong shape.
    transformers would initialise missing weights at random, and would ignore unknown weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.utils import logging

    headers = {file: safetensors_header(file) for file in set(tensor_files(folder).values())}
    weights = {
        name: torch.empty(entry["shape"], device="meta")
        for header in headers.values()
        for name, entry in header.items()
    }
    told = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind: type[PreTrainedModel] = AutoModelForImageTextToText._model_mapping[type(config)]
        model, loading = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError) as error:
        refuse_failed(error, folder)
        raise DataError(
            f"transformers can't build the model that {folder / 'config.json'} describes ({type(error).__name__}:"
            f" {first_line(error)}); copy the whole model folder again."
        ) from None
    finally:
        logging.set_verbosity(told)
        logging.enable_progress_bar()
    reshaped = {name: (list(has), list(needs)) for name, has, needs in loading["mismatched_keys"]}
    if reshaped:
        name = min(reshaped)
        has, needs = reshaped[name]
        problem = f"{name} has the shape {has} instead of {needs}"
        count = len(reshaped)
    elif missing := loading["missing_keys"]:
        problem, count = f"{min(missing)} is missing", len(missing)
    elif unknown := loading["unexpected_keys"]:
        problem, count = f"{min(unknown)} is not part of such a model", len(unknown)
    else:
        return model
    more = f" (and {count - 1} more)" if count > 1 else ""
    raise DataError(
        f"The weights in {folder} don't fit its config.json: {problem}{more}; copy the whole folder from one model."
    )


def _size(folder: Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name, 0)
    if not isinstance(value, int):
        raise DataError(f"{folder / 'config.json'}: {name} is {value!r}, not a whole number; copy the model again.")
    return value


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
        raise DataError(f"{path} is not valid JSON ({error}); copy the file again.") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds no JSON object; copy the file again.")
    return loaded


def local_model(where: Path, hub: str) -> Path:
    """Return the model's folder. If `where` is a hub id (org/name or org/name@revision), download the model.

    Raise ConfigError if the model can't be found.
    """
    if where.is_dir():
        return where.absolute()
    if where.exists():
        raise ConfigError(f"{where} is a file; give the folder of the model.")
    name, _, revision = str(where).removeprefix("hf-hub:").partition("@")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(
            f"There is no folder {where}, and HF_HUB_OFFLINE=1 forbids a download; give the path of a model folder."
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
        raise machine_error(error, "read or write") or ConfigError(
            f"{where} could not be downloaded from the hub ({type(error).__name__}: {first}); give the path of a model"
            " folder, or check the id and the network."
        ) from None
