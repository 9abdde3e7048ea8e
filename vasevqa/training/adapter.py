"""Read LoRA adapters in peft's format, and check that an adapter's tensors fit its base model.

Each tensor must belong to the base model, and no tensor may be missing. peft and ms-swift ignore unknown tensors, and
give missing tensors their initial values, which have no effect. So without this check, an adapter that doesn't fit
would have no effect, and no error would be reported.
"""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import models
from vasevqa.errors import DataError
from vasevqa.storage import refuse_failed
from vasevqa.text import first_line
from vasevqa.training.checkpoints import ADAPTER

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
# Settings of peft's LoraConfig for further kinds of adapter. merge can't check these adapters by B @ A.
REFUSED = (
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "lora_bias",
    "alora_invocation_tokens",
    "monteclora_config",
    "arrow_config",
    "ensure_weight_tying",
)
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # initializations that don't change the base's weights
VISION = ("visual", "vision")


@dataclass(frozen=True)
class Pair:
    """The names of an adapter's tensors for one linear module, and the scale of the adapter.

    Tensor A has the shape (rank, inputs), tensor B has (outputs, rank), and DoRA's magnitude has (outputs,).
    `magnitude` is None without DoRA.
    """

    a: str
    b: str
    magnitude: str | None
    scale: float


@dataclass(frozen=True)
class Adapter:
    """An adapter whose tensors all belong to its base model.

    `names` maps each tensor's name in the installed version of transformers to its name in the adapter's file. The keys
    of `pairs` are names of modules. The adapter replaces some parameters as a whole (modules_to_save, biases).
    `replaced` maps the name of such a parameter to the name of the adapter's tensor. `without` holds modules of the
    vision tower: the configuration names them, but the file has no tensors for them.
    """

    folder: Path
    config: LoraConfig
    names: dict[str, str]
    pairs: dict[str, Pair]
    replaced: dict[str, str]
    without: tuple[str, ...]

    @property
    def translated(self) -> dict[str, str]:
        """The renamed tensors: a mapping from the current name in transformers to the name in the adapter's file."""
        return {now: old for now, old in self.names.items() if now != old}


def plain(checkpoint: Path) -> Path:
    """Return the folder of the adapter that fits the unchanged base model.

    Some initializations, such as PiSSA, change the base model's weights before the training. ms-swift then also writes
    an adapter for the unchanged base model, to a folder in the checkpoint.
    """
    converted = checkpoint / "converted/default"
    return converted if (converted / ADAPTER).is_file() else checkpoint


def configuration(folder: Path, any_start: bool = False) -> LoraConfig:
    """Return the adapter's configuration.

    Some initializations, such as PiSSA, change the base model's weights. They are allowed only if `any_start` is True.

    Raise DataError if the configuration can't be read, or if it uses features other than LoRA and DoRA.
    """
    from peft import LoraConfig

    path = folder / models.ADAPTER_CONFIG
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        kind = given.get("peft_type")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns about keys of other versions
            config = LoraConfig.from_pretrained(str(folder)) if kind == "LORA" else None
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {path.name}; copy the whole checkpoint.") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{path} can't be read ({first_line(error)}); copy or train the adapter again.") from None
    if config is None:
        raise DataError(f"{path} describes an adapter of type {kind}; give a LoRA adapter.")
    asked = [name for name in REFUSED if getattr(config, name, None)]
    if config.init_lora_weights not in PLAIN_STARTS and not any_start:
        asked.append(f"init_lora_weights: {config.init_lora_weights}")
    if config.bias == "lora_only":
        asked.append("bias: lora_only")  # peft doesn't save these biases
    if asked:
        raise DataError(f"{path} sets {asked[0]}, whose result can't be checked; merge the adapter with peft.")
    _check_numbers(path, config)
    if config.r < 1 or not config.target_modules:
        raise DataError(f"{path} has no rank or no target_modules; copy or train the adapter again.")
    return config


def _check_numbers(path: Path, config: LoraConfig) -> None:
    """Raise DataError if a rank is not a whole number, or if a scale is not a number."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    for name, pattern in (("rank_pattern", ranks), ("alpha_pattern", alphas)):
        if not isinstance(pattern, dict):
            raise DataError(f"{path}: {name} is not a mapping; copy or train the adapter again.")
    numbers = [("r", config.r, (int,)), ("lora_alpha", config.lora_alpha, (int, float))]
    numbers += [(f"rank_pattern of {module}", value, (int,)) for module, value in ranks.items()]
    numbers += [(f"alpha_pattern of {module}", value, (int, float)) for module, value in alphas.items()]
    for name, value, kinds in numbers:
        if type(value) not in kinds:
            raise DataError(f"{path}: {name} is {value!r}, not a number; copy or train the adapter again.")


def read(folder: Path, base: Path, any_start: bool = False) -> Adapter:
    """Return the adapter in `folder`. Names of tensors from older versions of transformers are translated.

    `any_start` is passed to `configuration`. Raise DataError if the adapter's tensors don't match the adapter's
    configuration and the model in `base`, or if some values are not finite.
    """
    header = models.safetensors_header(folder / ADAPTER)
    config = configuration(folder, any_start)
    model = models.skeleton(base)
    names = _translated(folder, list(header), model)
    modules, without = _modules(folder, config, model, names)
    config = copy.deepcopy(config)
    config.target_modules = set(modules)
    wanted = _wanted(folder, config, model)
    given = {now: header[old]["shape"] for now, old in names.items()}
    _compare(folder, base, wanted, given)
    pairs = {module: _pair(module, config, names) for module in modules}
    paired = {PREFIX + module for module in modules}
    replaced = {
        now.removeprefix(PREFIX).replace(".base_layer.", "."): old
        for now, old in names.items()
        if ".lora_" not in now or now.partition(".lora_")[0] not in paired
    }
    found = Adapter(folder, config, names, pairs, replaced, tuple(without))
    _check_tied(found, model)
    _check_finite(found)
    return found


def _translated(folder: Path, names: list[str], model: PreTrainedModel) -> dict[str, str]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]
    known = {name for name, _ in model.named_modules()}
    found: dict[str, str] = {}
    for old in sorted(names):
        stem = old.removeprefix(PREFIX)
        now = rename_source_key(stem, renamings, [])[0]
        now = PREFIX + now if _module(stem) not in known and _module(now) in known else old
        if now in found:
            raise DataError(
                f"{folder / ADAPTER} holds {found[now]} and {old}, two spellings of one name; train the adapter again."
            )
        found[now] = old
    return found


def _module(name: str) -> str:
    """Return the module that a tensor of an adapter belongs to."""
    module, adapted, _ = name.partition(".lora_")
    return module if adapted else name.rpartition(".")[0].removesuffix(".base_layer")


def _modules(
    folder: Path, config: LoraConfig, model: PreTrainedModel, names: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return the modules that get an adapter, and the modules of the vision tower that have no tensors in the file.

    An adapter is often trained with a frozen vision tower. Names in target_modules can match modules of the language
    model and also modules of the tower. The tower counts as frozen only if the file has no tensor for any of its
    modules.
    """
    having = {_module(now.removeprefix(PREFIX)) for now in names if ".lora_" in now}
    named = _targets(folder, config, model, names)
    seeing = [module for module in named if any(part in module for part in VISION)]
    frozen = having and not having & set(seeing) and _freezes_vision(folder)
    without = seeing if frozen else []
    return [module for module in named if module not in set(without)], without


def _freezes_vision(folder: Path) -> bool:
    noted = folder / "args.json"
    try:
        return json.loads(noted.read_text(encoding="utf-8")).get("freeze_vit") is not False
    except (FileNotFoundError, ValueError, AttributeError):
        return True


def _targets(folder: Path, config: LoraConfig, model: PreTrainedModel, names: dict[str, str]) -> list[str]:
    """Return the current names of the modules that the adapter's setting target_modules matches.

    The installed version of transformers may have renamed modules since the adapter was trained. Each linear module
    then counts as matched if target_modules matches its current name or its old name. If no name has changed, peft
    finds the modules.
    """
    from peft.tuners.tuners_utils import check_target_module_exists
    from torch import nn

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    spellings = {_prefixes(now.removeprefix(PREFIX), old.removeprefix(PREFIX)) for now, old in names.items()}
    if all(now == old for now, old in names.items()):
        return list(_injected(folder, config, model).base_model.targeted_module_names)
    found = []
    for name in linear:
        old = next(
            (old + name.removeprefix(now) for now, old in spellings if now != old and name.startswith(now)), name
        )
        if check_target_module_exists(config, old) or check_target_module_exists(config, name):
            found.append(name)
    return found


def _prefixes(now: str, old: str) -> tuple[str, str]:
    """Return the prefixes that remain when the common ending of two spellings of a name is removed."""
    ends = list(zip(reversed(now.split(".")), reversed(old.split(".")), strict=False))
    same = next((number for number, (one, other) in enumerate(ends) if one != other), len(ends))
    same = min(same, now.count("."), old.count("."))
    return now.rsplit(".", same)[0] + ".", old.rsplit(".", same)[0] + "."


def _injected(folder: Path, config: LoraConfig, model: PreTrainedModel):  # type: ignore[no-untyped-def]
    """Return the model (without weights) with the layers that peft adds. Raise DataError if peft can't add them."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = copy.deepcopy(config)
            config.init_lora_weights = True  # other initializations would need the base's weights
            return PeftModel(copy.deepcopy(model), config, low_cpu_mem_usage=True)
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        refuse_failed(error, folder)
        raise DataError(
            f"The adapter in {folder} doesn't fit its base model ({first_line(error)}); give the base model"
            " that it was trained on, or correct target_modules in adapter_config.json."
        ) from None


def _wanted(folder: Path, config: LoraConfig, model: PreTrainedModel) -> dict[str, list[int]]:
    """Return the shape of each tensor that peft would write for this configuration."""
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_peft_model_state_dict(_injected(folder, config, model), save_embedding_layers=False)
    return {name: list(tensor.shape) for name, tensor in found.items()}


def _compare(folder: Path, base: Path, wanted: dict[str, list[int]], given: dict[str, list[int]]) -> None:
    unknown, missing = sorted(given.keys() - wanted.keys()), sorted(wanted.keys() - given.keys())
    reshaped = sorted(name for name in given.keys() & wanted.keys() if given[name] != wanted[name])
    if unknown:
        raise DataError(
            f"{folder / ADAPTER} holds tensors that neither {base.name} nor adapter_config.json knows"
            f" ({len(unknown)}, such as {unknown[0]}); give the base model that the adapter was trained on, or save the"
            " adapter again with a current version of peft."
        )
    if missing:
        raise DataError(
            f"{folder / ADAPTER} lacks {len(missing)} of the {len(wanted)} tensors that adapter_config.json requires,"
            f" such as {missing[0]}; copy or train the adapter again."
        )
    if not reshaped:
        return
    other = [name for name in reshaped if _sides(name, given[name]) != _sides(name, wanted[name])]
    if other:
        raise DataError(
            f"The adapter in {folder} was trained on a different base model than {base}: {other[0]} has shape"
            f" {given[other[0]]} instead of {wanted[other[0]]}; give the base model that the adapter was trained on."
        )
    name = reshaped[0]
    axis = _rank_axis(name)
    raise DataError(
        f"{folder / models.ADAPTER_CONFIG} says rank {wanted[name][axis]}, but {name} has rank {given[name][axis]};"
        " copy both files from one checkpoint."
    )


def _sides(name: str, shape: list[int]) -> list[int]:
    """Return the shape of an adapter's tensor without the rank."""
    return [side for axis, side in enumerate(shape) if ".lora_magnitude" in name or axis != _rank_axis(name)]


def _rank_axis(name: str) -> int:
    return 1 if ".lora_B." in name else 0


def _pair(module: str, config: LoraConfig, names: dict[str, str]) -> Pair:
    from peft.utils.other import get_pattern_key

    rank, alpha = config.r, config.lora_alpha
    if config.rank_pattern:
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), rank)
    if config.alpha_pattern:
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), alpha)
    stem = f"{PREFIX}{module}.lora_"
    return Pair(
        names[f"{stem}A.weight"],
        names[f"{stem}B.weight"],
        names.get(f"{stem}magnitude_vector"),
        alpha / rank**0.5 if config.use_rslora else alpha / rank,
    )


def _check_tied(adapter: Adapter, model: PreTrainedModel) -> None:
    """Raise DataError if the base model ties two tensors and the adapter would make these two tensors different."""
    tied = dict(model.all_tied_weights_keys)
    changed = {f"{module}.weight" for module in adapter.pairs} | set(adapter.replaced)
    for one, other in tied.items():
        if f"{one.rpartition('.')[0]}" in adapter.pairs or f"{other.rpartition('.')[0]}" in adapter.pairs:
            raise DataError(
                f"The adapter in {adapter.folder} changes {one}, which the model ties to {other}; train an adapter"
                " without this module."
            )
        if (one in changed) != (other in changed):
            saved, left = (one, other) if one in changed else (other, one)
            raise DataError(
                f"The adapter in {adapter.folder} replaces {saved}, but the model ties {left} to it; name both or"
                " neither in modules_to_save, and train again."
            )


def _check_finite(adapter: Adapter) -> None:
    from safetensors import safe_open

    with safe_open(adapter.folder / ADAPTER, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            if not bool(tensors.get_tensor(name).isfinite().all()):
                raise DataError(
                    f"{adapter.folder / ADAPTER} holds numbers that are not finite ({name}); choose an earlier"
                    " checkpoint, or train with a lower learning_rate."
                )


def for_loaders(adapter: Adapter, folder: Path) -> Path:
    """Return a folder from which peft and ms-swift load the complete adapter.

    Usually this is the adapter's own folder. If names were translated, or if the configuration names modules without
    tensors, the adapter is written to `folder` with corrected names and target_modules. The result is then `folder`.
    """
    if not adapter.translated and not adapter.without:
        return adapter.folder
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with safe_open(adapter.folder / ADAPTER, framework="pt") as tensors:
        found = {now: tensors.get_tensor(old) for now, old in adapter.names.items()}
    save_file(found, folder / ADAPTER, metadata={"format": "pt"})
    path = adapter.folder / models.ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(adapter.pairs)
    (folder / path.name).write_text(json.dumps(config), encoding="utf-8")
    for name in ("args.json", "additional_config.json"):
        if (adapter.folder / name).is_file():
            shutil.copyfile(adapter.folder / name, folder / name)
    return folder
