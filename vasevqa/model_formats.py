"""Recognize model folders in unsupported formats before a model is loaded.

Only file names, configurations and the first bytes of files are read. Each error message says what to do instead.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vasevqa import files
from vasevqa.errors import ConfigError, DataError

PICKLED = ("pytorch_model*.bin", "*.pth", "*.pt", "*.ckpt", "model-*.bin", "consolidated*.pth")
OTHER_WEIGHTS = {
    "*.gguf": "GGUF weights, which llama.cpp runs",
    "tf_model.h5": "TensorFlow weights",
    "flax_model.msgpack": "Flax weights",
    "*.onnx": "ONNX weights",
}
QUANTIZED_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
FLOATS = ("F64", "F32", "F16", "BF16")
LFS = b"version https://git-lfs"
_SUFFIX = re.compile(
    r"[-_.](?:unsloth[-_])?(?:awq|gptq(?:-int\d+)?|bnb(?:-\d+bit)?|\d+bit|int\d+|fp8(?:-dynamic)?|nf4|w\d+a\d+|gguf)\b.*$",
    re.IGNORECASE,
)
_LOADERS = {"clip": "CLIPModel"}  # transformers' class by model type; all other types: AutoModelForImageTextToText
CLASSIFIER_FILE = "best_image_quality_model.pth"  # the model in train-classifier's output
COMMON = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # known without transformers, which takes seconds to load
TEXT_ENCODERS = ("clip", "siglip", "siglip2", "chinese_clip", "altclip", "blip")
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "processor_config.json")


def refuse_other_form(folder: Path) -> None:
    """Raise ConfigError or DataError if `folder` holds a model in an unsupported format.

    Unsupported formats are LoRA adapters, Megatron checkpoints, cache folders of a model hub, git-lfs pointers,
    quantized weights, weights of other libraries, and pickled weights.
    """
    if not (folder / "config.json").is_file() or not _first(folder, ("model*.safetensors*", *PICKLED, *OTHER_WEIGHTS)):
        _refuse_no_model(folder)
    if not (folder / "config.json").is_file():
        return
    refuse_pointers(folder)
    config = _object(folder / "config.json")
    method = quantization(folder, config)
    if method:
        original = _SUFFIX.sub("", folder.name)
        named = f", such as {original}" if original not in (folder.name, "") else ""
        raise ConfigError(
            f"{folder} holds a model quantized by {method}, which can't be used here; give the original model in"
            f" bfloat16{named}."
        )
    if any(folder.glob("*.safetensors")) or (folder / "model.safetensors.index.json").is_file():
        return
    _refuse_other_weights(folder, str(config.get("model_type")))


def refuse_other_clip(folder: Path) -> None:
    """Raise ConfigError or DataError if `folder` holds no CLIP model, or a CLIP model in an unsupported format.

    `refuse_other_form` lists the unsupported formats. A model in open_clip's format is supported.
    """
    refuse_pointers(folder)
    if (folder / "open_clip_config.json").is_file():
        return
    refuse_other_form(folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is not a CLIP model: it has neither config.json (Hugging Face) nor open_clip_config.json"
            " (open_clip); give the folder of a CLIP model."
        )
    kind = _object(folder / "config.json").get("model_type")
    if kind != "clip":
        raise ConfigError(f"{folder} holds a model of type '{kind}', not clip; give a CLIP model.")


def refuse_no_checkpoint(path: Path) -> None:
    """Raise DataError if a file can't be a PyTorch checkpoint. Only the first bytes of the file are read."""
    with path.open("rb") as stream:
        start = stream.read(2)
    if path.suffix != ".safetensors" and start != b"PK" and start[:1] != b"\x80":
        raise DataError(
            f"{path} is not a PyTorch checkpoint; give the .pth file that train-classifier wrote, or train a new"
            " classifier."
        )


def quantization(folder: Path, config: dict[str, Any]) -> str:
    """Return the method that quantized a model, such as awq, or '' if the model isn't quantized."""
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for part in parts:
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict):
            return str(settings.get("quant_method") or ("bitsandbytes" if _bits(settings) else "an unknown method"))
    return next((method for name, method in QUANTIZED_FILES.items() if (folder / name).is_file()), "")


def refuse_quantized_tensors(folder: Path, dtypes: Mapping[str, str]) -> None:
    """Raise ConfigError if the data type of a weight shows that the model is quantized.

    `dtypes` maps a tensor's name to its data type.
    """
    for name, dtype in dtypes.items():
        if name.endswith("weight") and dtype not in FLOATS:
            raise ConfigError(
                f"{folder} holds a quantized model ({name} is {dtype}), which can't be used here; give the original"
                " model in bfloat16."
            )


def refuse_pointers(folder: Path) -> None:
    """Raise DataError if a file of the model is a git-lfs pointer instead of the real file."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < 1024:
            with path.open("rb") as stream:
                if stream.read(len(LFS)) == LFS:
                    raise DataError(
                        f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in that folder, or"
                        " download the model again."
                    )


def refuse_no_vision(folder: Path, config: dict[str, Any]) -> None:
    """Raise ConfigError if `config` belongs to a model that doesn't answer questions about images."""
    kind = str(config.get("model_type"))
    if kind.removesuffix("_model") in TEXT_ENCODERS:
        raise ConfigError(
            f"{folder} holds a model of type '{kind}', which can't answer questions; give a vision-language model,"
            f" such as Qwen2.5-VL, and give {folder} as clip_model."
        )
    keys = " ".join(config)
    if not re.search(r"vision|visual|\bvit_|image_processor|img_processor|mm_", keys):
        named = ", ".join(map(str, config.get("architectures") or [kind]))
        raise ConfigError(
            f"{folder} holds a model without vision ({named}); give a vision-language model, such as Qwen2.5-VL."
        )


def refuse_unknown_type(folder: Path, config: dict[str, Any]) -> None:
    """Raise ConfigError if transformers is installed and doesn't know the model's type.

    ms-swift would run the code in the folder of such a model. This project never runs such code.
    """
    kind = str(config.get("model_type"))
    if kind in COMMON or importlib.util.find_spec("transformers") is None:
        return
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        named = ", ".join(map(str, config.get("architectures") or ["no architecture"]))
        why = (
            "code from the model's folder, which is never run"
            if config.get("auto_map")
            else f"a newer version of transformers than {__version__}"
        )
        raise ConfigError(
            f"{folder} holds a model of type '{kind}' ({named}), which needs {why}; give a model that"
            " transformers knows, such as Qwen2.5-VL."
        )


def refuse_no_chat_template(folder: Path) -> None:
    """Raise DataError if the folder has no chat template."""
    for name in TEMPLATES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix == ".jinja" or _object(path).get("chat_template"):
            return
    if any((folder / "additional_chat_templates").glob("*.jinja")):
        return
    raise DataError(
        f"{folder} holds no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); copy"
        " chat_template.jinja or chat_template.json from the folder of the matching instruct model."
    )


def _refuse_no_model(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        base = _object(folder / "adapter_config.json").get("base_model_name_or_path")
        of = f" of {base}" if base else ""
        raise ConfigError(
            f"{folder} holds a LoRA adapter{of}, not a whole model; run `merge` with --adapters {folder}, and give the"
            " folder that it writes."
        )
    if (folder / "training_summary.json").is_file() or any(folder.glob("checkpoint-*/trainer_state.json")):
        raise ConfigError(
            f"{folder} holds checkpoints of a training, not a whole model; run `merge` with --adapters {folder},"
            " and give the folder that it writes."
        )
    if (folder / "latest_checkpointed_iteration.txt").is_file() or any(folder.glob("**/*.distcp")):
        raise ConfigError(
            f"{folder} holds a Megatron checkpoint; run `to-megatron` with --to-hf {folder}, and give the folder that"
            " it writes."
        )
    if (folder / "snapshots").is_dir():
        revisions = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
        inner = revisions[-1] if revisions else folder / "snapshots/REVISION"
        raise ConfigError(
            f"{folder} is the cache folder of a model hub; give the folder of one revision, such as {inner}."
        )
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    if inside and not (folder / "config.json").is_file():
        raise ConfigError(
            f"There is no config.json in {folder}, but there is one in {inside[0].name}/; give {inside[0]}."
        )
    if not (folder / "config.json").is_file():
        _refuse_other_weights(folder, "")


def _refuse_other_weights(folder: Path, model_type: str) -> None:
    for pattern, what in OTHER_WEIGHTS.items():
        weights = sorted(folder.glob(pattern))
        if weights and not _first(folder, PICKLED):
            raise ConfigError(
                f"{folder} holds {what} ({weights[0].name}) and no model.safetensors; give the Hugging Face folder of"
                " the same model."
            )
    pickled = _first(folder, PICKLED)
    if pickled is not None and model_type:
        loader = _LOADERS.get(model_type, "AutoModelForImageTextToText")
        raise DataError(
            f"{folder} holds pickled weights only ({pickled.name}), which could run code when they are loaded; convert"
            f" the weights once with this command, which runs no code from the file: {conversion(folder, loader)}"
        )
    unfinished = next(iter(sorted(folder.glob(".cache/huggingface/download/**/*.incomplete"))), None)
    if unfinished is not None:
        raise DataError(
            f"The download of {folder} did not finish (.cache/huggingface/download holds {unfinished.name[-40:]}); run"
            " the same download again."
        )


def conversion(folder: Path, loader: str) -> str:
    """Return a shell command that converts pickled weights in `folder` to model.safetensors.

    `loader` is the name of the class in transformers that loads the model. The command uses weights_only=True, so it
    runs no code from the pickled file.
    """
    read = "M.from_pretrained(sys.argv[1], dtype='auto', weights_only=True)"
    return (
        f'python -c "import sys; from transformers import {loader} as M; {read}.save_pretrained(sys.argv[1])"'
        f" {shlex.quote(str(folder))}"
    )


def _first(folder: Path, patterns: Iterable[str]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def _bits(settings: dict[str, Any]) -> bool:
    return any(settings.get(name) for name in ("load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"))


def _object(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); copy the file again.") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds no JSON object; copy the file again.")
    return loaded


def folder_digest(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Return a digest of the names and contents of all files of a model.

    `known` maps the names of some files to their digests. These files are not read.
    """
    known = known or {}
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return files.digest_json({path.name: known.get(path.name) or files.digest_file(path) for path in paths})[:32]
