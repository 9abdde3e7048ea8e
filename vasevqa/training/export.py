"""The stage to-megatron: convert a Hugging Face model to a Megatron checkpoint, or convert a Megatron checkpoint back.

The stage fails if the conversion isn't precise enough.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vasevqa import models
from vasevqa.errors import (
    ConfigError,
    DataError,
    DeviceError,
    GateError,
    GpuMemoryError,
)
from vasevqa.text import percent
from vasevqa.training.params import ConversionOptions, ConversionParams
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment
from vasevqa.training.swift.messages import ConversionTask, ended

if TYPE_CHECKING:
    from vasevqa.spec import StageCall

CHILD = "vasevqa.training.swift.megatron_worker"
REPORT = "conversion_report.json"
WORK = ".converting"
PACKAGES = ("transformer_engine", "megatron", "mcore_bridge")


Figures = dict[str, float]  # the measured figures by name


def check_machine() -> None:
    """Check that this machine can convert a model. The check runs before a model is loaded.

    Raise DeviceError if there is no CUDA, and ConfigError if a package is missing.
    """
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            "The conversion to Megatron needs CUDA, but this machine has none; run the step on a GPU node, or"
            " skip it (`skip: [to-megatron]`)."
        )
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"The conversion to Megatron needs the package {package}, which is not installed; use the"
                " to-megatron image, or install the package."
            )


def convert(call: StageCall[ConversionParams, ConversionOptions]) -> None:
    """Write the converted model and conversion_report.json to the output.

    Raise GateError if the check of the converted model fails. A Megatron checkpoint must give the same answers as the
    model. A model that was converted back must have the same tensors as the model in the input `model`.
    """
    check_machine()
    began = time.monotonic()
    model = models.local_model(call.inputs["model"], call.options.hub)
    models.check_model(model)
    models.skeleton(model)
    back = "mcore" in call.inputs
    if back and not (call.inputs["mcore"] / "latest_checkpointed_iteration.txt").is_file():
        raise DataError(
            f"{call.inputs['mcore']} is not a Megatron checkpoint: latest_checkpointed_iteration.txt is missing; give"
            " the folder that to-megatron wrote."
        )
    call.progress.start("to Hugging Face" if back else "to Megatron", None, "models")
    work = call.output.root / WORK
    shutil.rmtree(work, ignore_errors=True)
    argv = swift.to_hf(model, call.inputs["mcore"], work) if back else swift.to_mcore(model, work)
    figures = _child(argv, call.options)
    if back:
        figures = _compared(work, model)
        verdict = _same_tensors(figures, model)
    else:
        verdict = _same_answers(figures, call.params)
    report = {
        **figures,
        "passed": verdict.passed,
        "tolerance": call.params.tolerance,
        "torch_dtype": "bfloat16",
        "direction": "to_hf" if back else "to_mcore",
    }
    call.output.write_json(REPORT, report)
    if not verdict.passed:
        shutil.rmtree(work, ignore_errors=True)
        raise GateError(verdict.complaint)
    for entry in sorted(work.iterdir()):
        call.output.check()
        target = call.output.root / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
    work.rmdir()
    call.progress.speed({"convert and compare": time.monotonic() - began}, 1, "models")
    call.progress.summary(f"converted: {verdict.told}", **report)


@dataclass(frozen=True)
class _Verdict:
    """The result of the check of a converted model.

    `passed` is True if the models agree. `told` gives the measured figures in words. `complaint` is the error message
    for a failed check.
    """

    passed: bool
    told: str
    complaint: str


def _same_tensors(figures: Figures, model: Path) -> _Verdict:
    missing, reshaped = figures["tensors_missing"], figures["tensors_of_another_shape"]
    return _Verdict(
        not missing and not reshaped,
        f"{figures['tensors_identical']} of {figures['tensors']} tensors are equal to those of {model.name}",
        f"The converted model does not match {model}: {missing} tensors are missing, {reshaped} have another shape; "
        "give the model that was converted.",
    )


def _same_answers(figures: Figures, params: ConversionParams) -> _Verdict:
    mean = figures.get("mean_difference_of_answer", figures.get("mean_difference", math.nan))
    agreement, greatest = figures.get("agreement", math.nan), figures.get("max_difference", math.nan)
    return _Verdict(
        # A mean over a large vocabulary hides large differences, so first choices must agree too. NaN fails both tests.
        bool(mean <= params.tolerance and agreement >= params.agreement),
        f"logits differ by {mean:.2g} on average, by at most {greatest:.2g}",
        f"The converted model answers differently: its logits differ by {mean:.3g} on average (at most"
        f" {params.tolerance:g}) and {percent(agreement, 1)} of first choices agree (at least"
        f" {percent(params.agreement, 1)}); don't use it, and report the versions in {REPORT}.",
    )


def _compared(converted: Path, model: Path) -> Figures:
    """Compare the tensors in `converted` and `model` in bfloat16, one tensor at a time, and return the figures."""
    import torch
    from safetensors import safe_open

    models.check_model(converted)
    places = {
        name: file for file in sorted(converted.glob("model*.safetensors")) for name in models.safetensors_header(file)
    }
    figures = {"tensors": 0, "tensors_identical": 0, "tensors_missing": 0, "tensors_of_another_shape": 0}
    greatest = 0.0
    for file in sorted(model.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                figures["tensors"] += 1
                if name not in places:
                    figures["tensors_missing"] += 1
                    continue
                with safe_open(places[name], framework="pt") as others:
                    one, other = tensors.get_tensor(name).to(torch.bfloat16), others.get_tensor(name).to(torch.bfloat16)
                if one.shape != other.shape:
                    figures["tensors_of_another_shape"] += 1
                    continue
                figures["tensors_identical"] += bool(torch.equal(one, other))
                greatest = max(greatest, float((one.float() - other.float()).abs().max()) if one.numel() else 0.0)
    return {**figures, "max_weight_difference": greatest}


def _child(argv: list[str], options: ConversionOptions) -> Figures:
    from vasevqa.training.parity import picture

    with tempfile.TemporaryDirectory(prefix="vasevqa-") as folder:
        image, spec = Path(folder) / "vase.png", Path(folder) / "spec.json"
        picture().save(image)
        ConversionTask(argv, str(image)).write(spec)
        environ = environment.child(environment.ChildSettings(Path(folder), options.device, options.hub))
        # Megatron runs only as a member of a process group.
        environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        code = subprocess.run(
            [sys.executable, "-m", CHILD, str(spec)], env=environ, stdin=subprocess.DEVNULL, check=False
        ).returncode
        result = ended(spec, code, "The conversion")
    if result.exit_code == GpuMemoryError.exit_code:
        raise GpuMemoryError(
            f"The GPU has too little memory for the model in both formats ({result.message}); use a larger GPU."
        )
    if result.exit_code:
        raise result.raised() or RuntimeError(f"ms-swift: {result.message}")
    return result.figures


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
