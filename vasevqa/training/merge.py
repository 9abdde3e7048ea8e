"""The stage merge: merge the adapter into its base model with ms-swift, and check the merged weights and logits."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import models
from vasevqa.errors import DataError, GateError
from vasevqa.text import percent
from vasevqa.training import adapter, checkpoints, provenance
from vasevqa.training.params import MergeOptions, MergeParams
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment
from vasevqa.training.swift.blame import blaming

if TYPE_CHECKING:
    from vasevqa.spec import Output, Progress, StageCall
    from vasevqa.training.adapter import Adapter
    from vasevqa.training.merged import Weights
    from vasevqa.training.parity import Parity

REPORT = "merge_report.json"
WORK, TRANSLATED = ".merging", ".adapter"
COMPLAINTS = 20  # maximum number of complaints in a report
# Files in a checkpoint of a full training that are not part of the model.
TRAINING_FILES = {
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
    "args.json",
    "artifact.json",
    REPORT,
}


def merge(call: StageCall[MergeParams, MergeOptions]) -> None:
    """Write a whole model folder and merge_report.json to the output.

    Raise DataError or ConfigError if the adapter doesn't fit the base model. Raise GateError if the merged weights are
    wrong, or if the logits or the predicted tokens differ too much. After a GateError, merge_report.json stays in the
    partial output.
    """
    began = time.monotonic()
    chosen = checkpoints.choose(call.inputs["adapters"], call.params.checkpoint)
    if not (chosen / checkpoints.ADAPTER).is_file():
        _pass_through(chosen, call.output, call.progress)
        return
    if any(chosen.glob("model*.safetensors")):
        raise DataError(
            f"{chosen} holds an adapter and a whole model, so it isn't clear which one is meant; move one of them"
            " elsewhere."
        )
    models.safetensors_header(chosen / checkpoints.ADAPTER)
    base = models.local_model(call.inputs["model"], call.options.hub)
    models.check_model(base)
    given = adapter.read(adapter.plain(chosen), base)
    provenance.check(given, chosen, base)
    work = call.output.root / TRANSLATED
    try:
        _merge(call, base, chosen.name, given, adapter.for_loaders(given, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    call.progress.speed({"merge and compare": time.monotonic() - began}, 1, "models")


def _merge(call: StageCall[MergeParams, MergeOptions], base: Path, name: str, given: Adapter, loaded: Path) -> None:
    """Merge the adapter, compare weights and logits, and move the merged model to the output.

    `name` is the name of the checkpoint. `given` is the adapter as it was read. `loaded` is the folder from which peft
    and ms-swift load the adapter.
    """
    dtype = _dtype(base) if call.params.torch_dtype == "auto" else call.params.torch_dtype
    _tell(given, call.progress)
    call.progress.start(f"merging {name}", None, "tensors")
    merged = call.output.root / WORK
    shutil.rmtree(merged, ignore_errors=True)
    export(base, loaded, merged, dtype)
    call.progress.start("comparing", 3, "comparisons")
    weights = _compare_weights(given, base, merged, dtype)
    call.progress.advance()
    parity = _compare(base, loaded, merged, dtype, call.options, call.progress)
    complaints = [told for told in (_first(weights), _complaint(parity, dtype, call.params)) if told]
    report = {
        "checkpoint": name,
        "torch_dtype": dtype,
        "adapter_norm": checkpoints.adapter_norm(given.folder),
        **asdict(parity),
        "passed": not complaints,
        "tolerance": call.params.tolerance if dtype == "float32" else None,
        "least_agreement": None if dtype == "float32" else call.params.agreement,
        "weights": {**asdict(weights), "complaints": weights.complaints[:COMPLAINTS]},
        "translated_names": given.translated,
        "frozen_modules": list(given.without),
    }
    call.output.write_json(REPORT, report)
    if complaints:
        shutil.rmtree(merged, ignore_errors=True)
        raise GateError(
            f"The merged model is not the sum of base and adapter: {'; '.join(complaints)}; see {REPORT}, and check"
            f" that {base} is the model that {name} was trained on."
        )
    (merged / "args.json").unlink(missing_ok=True)  # ms-swift would use the paths in this file
    checkpoints.share(merged, (call.output.root / REPORT).stat().st_mode & 0o777)
    for file in sorted(merged.iterdir()):
        call.output.check()
        os.replace(file, call.output.root / file.name)
    merged.rmdir()
    _summarize(call, name, weights, parity, report)


def _tell(given: Adapter, progress: Progress) -> None:
    if given.translated:
        now, old = min(given.translated.items())
        progress.note(
            f"{len(given.translated)} tensors of {given.folder.name} have names from older versions of transformers;"
            f" {old} was read as {now}"
        )
    if given.without:
        progress.note(
            f"{given.folder.name} holds no tensors for the {len(given.without)} modules of the vision tower in its"
            " target_modules; the tower is treated as frozen"
        )


def _compare_weights(given: Adapter, base: Path, merged: Path, dtype: str) -> Weights:
    from vasevqa.curation.devices import DTYPES
    from vasevqa.training import merged as merged_weights

    return merged_weights.compare(given, base, merged, DTYPES[dtype])


def _first(weights: Weights) -> str:
    more = len(weights.complaints) - 1
    return weights.complaints[0] + (f" (and {more} more)" if more > 0 else "") if weights.complaints else ""


def _summarize(
    call: StageCall[MergeParams, MergeOptions], name: str, weights: Weights, parity: Parity, report: dict[str, object]
) -> None:
    if weights.zero == weights.targets and not weights.replaced:
        told = f"{name} is a zero adapter: the merged model is its base"
    else:
        told = f"merged {name}: {weights.changed} of {weights.targets} target modules changed" + (
            f" ({weights.zero} are zero in the adapter)" if weights.zero else ""
        )
    if given := report["translated_names"]:
        told += f", {len(given)} older names translated"  # type: ignore[arg-type]
    call.progress.summary(
        f"{told}, {percent(parity.agreement, 1)} of first choices agree, logits differ by at most"
        f" {parity.max_difference:.2g}",
        **report,
    )


def _complaint(parity: Parity, dtype: str, params: MergeParams) -> str:
    """Return what is wrong with the merged model, or an empty string if nothing is wrong.

    In float32, the logits must be equal within the tolerance. In bfloat16 and float16, the logits also differ by
    rounding. For these types, the most probable tokens are compared instead.
    """
    if dtype == "float32":
        passed = parity.max_difference <= params.tolerance
        measured = f"logits differ by {parity.max_difference:.2g} (allowed: at most {params.tolerance:g})"
    else:
        passed = parity.agreement >= params.agreement
        measured = f"{percent(parity.agreement, 1)} agree (at least {percent(params.agreement, 1)})"
    return "" if passed else measured


def _compare(base: Path, adapter: Path, merged: Path, dtype: str, options: MergeOptions, progress: Progress) -> Parity:
    from vasevqa.curation.devices import resolve_device
    from vasevqa.training import parity

    device = resolve_device(options.device)
    before = parity.logits(base, base, adapter, dtype, device)
    progress.advance()
    after = parity.logits(merged, base, None, dtype, device)
    progress.advance()
    return parity.compare(before, after)


def export(base: Path, adapter: Path, merged: Path, dtype: str) -> None:
    """Run ms-swift's merge in this process. Raise DataError if ms-swift writes no merged weights."""
    os.environ |= {"USE_HF": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # ms-swift's import reads these
    from swift import export_main

    environment.refuse_model_code()
    model_type = (
        json.loads((adapter / "args.json").read_text(encoding="utf-8")).get("model_type")
        if (adapter / "args.json").is_file()
        else None
    )
    with blaming(base):
        export_main(swift.merge(base, adapter, merged, dtype, model_type))
    if not any(merged.glob("model*.safetensors")):
        raise DataError(f"ms-swift wrote no merged weights from {adapter}; see the log.")


def _dtype(base: Path) -> str:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    named = (
        config.get("dtype") or config.get("torch_dtype") or (config.get("text_config") or {}).get("dtype") or "bfloat16"
    )
    return str(named) if named in ("float32", "bfloat16", "float16") else "bfloat16"


def _pass_through(model: Path, output: Output, progress: Progress) -> None:
    models.check_model(model)
    models.skeleton(model)
    names = [
        file.name
        for file in sorted(model.iterdir())
        if file.is_file() and file.name not in TRAINING_FILES and not file.name.startswith("rng_state")
    ]
    for name in names:
        output.place(model / name, name)
    output.write_json(REPORT, {"passed_through": True, "checkpoint": model.name})
    progress.summary(f"{model.name} is a whole model, not an adapter: passed through unchanged", passed_through=True)
