"""The stage merge: merge the adapter into its base model with ms-swift, and prove that nothing else changed."""

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
from vasevqa.training import checkpoints
from vasevqa.training.params import MergeOptions, MergeParams
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment

if TYPE_CHECKING:
    from vasevqa.spec import Output, Progress, StageCall
    from vasevqa.training.parity import Parity

REPORT = "merge_report.json"
WORK = ".merging"
# What a checkpoint of a full training holds beside the model.
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
    """Write a whole model folder and merge_report.json to `output`.

    Raise GateError if the difference is over the tolerance. The figures then stay in the partial output.
    """
    began = time.monotonic()
    chosen = checkpoints.choose(call.inputs["adapters"], call.params.checkpoint)
    if not (chosen / checkpoints.ADAPTER).is_file():
        _pass_through(chosen, call.output, call.progress)
        return
    models.safetensors_header(chosen / checkpoints.ADAPTER)
    base = models.local_model(call.inputs["model"], call.options.hub)
    models.check_model(base)
    dtype = _dtype(base) if call.params.torch_dtype == "auto" else call.params.torch_dtype
    call.progress.start(f"merging {chosen.name}", None, "tensors")
    merged = call.output.root / WORK
    shutil.rmtree(merged, ignore_errors=True)
    export(base, chosen, merged, dtype)
    call.progress.start("comparing", 2, "models")
    parity = _compare(base, chosen, merged, dtype, call.options, call.progress)
    complaint = _complaint(parity, dtype, call.params)
    exact = dtype == "float32"
    report = {
        "checkpoint": chosen.name,
        "torch_dtype": dtype,
        "adapter_norm": checkpoints.adapter_norm(chosen),
        **asdict(parity),
        "passed": not complaint,
        "tolerance": call.params.tolerance if exact else None,
        "least_agreement": None if exact else call.params.agreement,
    }
    call.output.write_json(REPORT, report)
    if complaint:
        shutil.rmtree(merged, ignore_errors=True)
        raise GateError(
            f"The merged model answers differently from base and adapter: {complaint}; is {base} the model that"
            f" {chosen.name} was trained on?"
        )
    (merged / "args.json").unlink(missing_ok=True)  # it names paths of this machine, and ms-swift would go by them
    checkpoints.share(merged, (call.output.root / REPORT).stat().st_mode & 0o777)
    for file in sorted(merged.iterdir()):
        call.output.check()
        os.replace(file, call.output.root / file.name)
    merged.rmdir()
    call.progress.speed({"merge and compare": time.monotonic() - began}, 1, "models")
    call.progress.summary(
        f"merged {chosen.name}: {parity.agreement:.1%} of first choices agree, logits differ by at most"
        f" {parity.max_difference:.2g}",
        **report,
    )


def _complaint(parity: Parity, dtype: str, params: MergeParams) -> str:
    """Return what is wrong with the merged model, or an empty string if nothing is wrong.

    In float32 the logits must be equal within the tolerance. In other types the rounding differs, so the tokens' first
    choices are compared instead.
    """
    if dtype == "float32":
        passed = parity.max_difference <= params.tolerance
        measured = f"logits differ by {parity.max_difference:.2g} (at most {params.tolerance:g})"
    else:
        passed = parity.agreement >= params.agreement
        measured = f"{parity.agreement:.1%} agree (at least {params.agreement:.0%})"
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
    """Run ms-swift's merge in this process."""
    os.environ |= {"USE_HF": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # read when swift is imported
    from swift import export_main

    environment.refuse_model_code()
    model_type = (
        json.loads((adapter / "args.json").read_text(encoding="utf-8")).get("model_type")
        if (adapter / "args.json").is_file()
        else None
    )
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
    names = [
        file.name
        for file in sorted(model.iterdir())
        if file.is_file() and file.name not in TRAINING_FILES and not file.name.startswith("rng_state")
    ]
    for name in names:
        output.place(model / name, name)
    output.write_json(REPORT, {"passed_through": True, "checkpoint": model.name})
    progress.summary(f"{model.name} is a whole model, not an adapter: passed through as it is", passed_through=True)
