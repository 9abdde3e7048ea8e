"""Run one training inside a stage.

The stage first runs all checks, and then trains in a child process. If the child process is killed, the training can
resume. The stage reports the training curve as events. When the GPU's memory runs out, the stage tries the next batch
plan of the OOM ladder (`rungs`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasevqa import files, models
from vasevqa.dataset.row_checks import CheckedRows, check_rows
from vasevqa.dataset.rows import image_root
from vasevqa.errors import ConfigError, GpuMemoryError, StorageError
from vasevqa.training import checkpoints, estimate, preflight, provenance, trained_rows
from vasevqa.training.params import GrpoOptions, GrpoParams, SftOptions, SftParams, TrainingOptions, TrainingParams
from vasevqa.training.swift import arguments as swift
from vasevqa.training.swift import environment
from vasevqa.training.swift.arguments import BatchPlan, TrainingPaths
from vasevqa.training.swift.log import LogRow, log_row, read_log
from vasevqa.training.swift.messages import TrainingTask, WorkerResult, ended
from vasevqa.training.trained_rows import TrainedRows

if TYPE_CHECKING:
    from vasevqa.spec import StageCall

CHILD = "vasevqa.training.swift.worker"
FOLDER = "training"
SUMMARY = "training_summary.json"
SETTINGS = provenance.SETTINGS
PLUGIN = Path(__file__).with_name("swift") / "plugin.py"


def rungs(batch: int, accumulation: int, processes: int, checkpointing: bool) -> list[BatchPlan]:
    """Return the batch plans to try in turn when the GPU's memory runs out.

    Every plan uses the same number of rows for an optimizer step. A later plan recomputes activations, or processes
    fewer rows at once. `batch` x `accumulation` is the global batch. `processes` is the number of GPUs, which share the
    global batch equally.

    Raise ConfigError if the global batch can't be shared equally.
    """
    if accumulation % processes == 0:
        accumulation //= processes
    elif batch * accumulation % processes == 0:
        batch, accumulation = 1, batch * accumulation // processes
    else:
        raise ConfigError(
            f"{processes} GPUs can't share a global batch of {batch} x {accumulation} rows; change"
            " gradient_accumulation_steps."
        )
    ladder = [BatchPlan(batch, accumulation, checkpointing)]
    if not checkpointing:
        ladder.append(BatchPlan(batch, accumulation, True))
    while batch % 2 == 0:
        batch, accumulation = batch // 2, accumulation * 2
        ladder.append(BatchPlan(batch, accumulation, True))
    return ladder


class Training:
    """One training with SFT or GRPO, as the call of the stage describes it."""

    def __init__(self, call: StageCall[TrainingParams, TrainingOptions]) -> None:
        params, options = call.params, call.options
        self.kind = "grpo" if isinstance(params, GrpoParams) else "sft"
        self.params, self.options, self.output, self.progress = params, options, call.output, call.progress
        self.folder = call.output.root / FOLDER
        self.model = models.local_model(call.inputs["model"], options.hub)
        self.inputs = call.inputs
        self.wanted = "solution" if self.kind == "grpo" else None  # the column that the reward compares answers with
        self.root = image_root(call.inputs["dataset"], options.image_root)
        self.processes = environment.processes(options)
        self.ladder = rungs(
            params.batch_size,
            params.gradient_accumulation_steps,
            self.processes,
            options.gradient_checkpointing,
        )
        self.walked: list[dict[str, Any]] = []
        self.seen = 0
        self.unrewarded = 0  # number of answers for which every reward returned None, in all attempts of this stage

    def check(self) -> dict[str, int]:
        """Check parameters, rows and models before the model is loaded, and return the number of rows per split."""
        from vasevqa.curation.devices import resolve_device

        if self.params.torch_dtype != "float32" and resolve_device(self.options.device).type == "cpu":
            raise ConfigError(
                "Without a GPU ms-swift trains in float32 only; set torch_dtype to float32, or run on a machine"
                " with a GPU."
            )
        shape = models.check_model(self.model)
        models.skeleton(self.model)
        preflight.check_adapters(self.model, self.params, self.inputs.get("resume"))
        dataset = self.inputs["dataset"]
        checked = {"train": check_rows(dataset / f"{self.kind}.jsonl", self.root, self.wanted)}
        if isinstance(self.params, GrpoParams):
            preflight.check_rewards(self.params.reward_funcs, self.inputs.get("plugin"), dataset / "grpo.jsonl")
        validation = dataset / "val.jsonl"
        if self.kind == "sft" and validation.is_file() and validation.stat().st_size:
            checked["validation"] = check_rows(validation, self.root)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._same_training()
        preflight.check_disk(self.folder, shape, self.params)
        last = self.ladder[-1]
        self.needed = estimate.gpu_bytes(shape, self.params, last.batch_size, last.gradient_checkpointing)
        self.rows = self._trainable(checked)
        return {name: part.count for name, part in self.rows.items()}

    def _trainable(self, checked: Mapping[str, CheckedRows]) -> dict[str, TrainedRows]:
        """Count the tokens of every row, and exclude the rows that can't be used for training."""
        paths = TrainingPaths(self.model, checked["train"].path, self.folder, system=self.inputs.get("system"))
        reading = trained_rows.Reading(
            self.kind,
            swift.reading(self.params, paths),
            environment.child(self._child_settings()),
            self.root,
            self.model,
        )
        return trained_rows.trainable_rows(checked, reading, self.params, self.output, self.progress)

    def _same_training(self) -> None:
        """Raise ConfigError if the folder holds checkpoints of a training with different settings.

        A training that continued from these checkpoints would match neither the old settings nor the new settings. If a
        launcher started the stage, nothing is checked, because the folder then belongs to one set of settings.
        """
        dataset = self.inputs["dataset"] / f"{self.kind}.jsonl"
        now = {
            **self.params.model_dump(),
            "model": str(self.model),
            "rows": files.digest_file(dataset)[:16],
            provenance.WEIGHTS: models.fingerprint(self.model),
        }
        now = json.loads(json.dumps(now))
        noted = self.output.root / SETTINGS
        before = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else now
        # A parameter or a fingerprint that the folder's record lacks is not a change.
        changed = sorted(name for name in now if name in before and before[name] != now[name])
        if changed and self.output.standalone and checkpoints.checkpoints(self.folder):
            raise ConfigError(
                f"{self.output.root} already holds a training with a different {changed[0]}"
                f" ({before.get(changed[0])}, not {now[changed[0]]}); choose another --output-dir, or pass a checkpoint"
                " of that training as --resume-from-checkpoint."
            )
        self.output.write_json(SETTINGS, now)

    def places(self, resume: Path | None) -> TrainingPaths:
        """Return the paths that this attempt reads and writes."""
        plugins = (PLUGIN,) if self.kind == "grpo" else ()
        validation = self.rows["validation"].path if "validation" in self.rows else None
        return TrainingPaths(
            self.model,
            self.rows["train"].path,
            self.folder,
            validation,
            resume,
            self.inputs.get("system"),
            plugins,
        )

    def run(self) -> None:
        """Train to the end.

        Start from the newest checkpoint. When the GPU's memory runs out, continue with the next plan of the ladder.
        """
        given = self.inputs.get("resume")
        for number, rung in enumerate(self.ladder):
            found, broken = checkpoints.newest(self.folder)
            for checkpoint in broken:
                self.progress.note(f"{checkpoint.path.name} is incomplete ({checkpoint.problem}) and was set aside")
            resume = found.path if found else checkpoints.choose(given, "last") if given else None
            if resume is not None:
                self.progress.note(f"resuming from {resume.name}")
            began = found.step if found else 0
            result = self._attempt(rung, resume)
            outcome = result.message if result.exit_code else "done"
            self.walked.append({**asdict(rung), "from_step": began, "outcome": outcome})
            if result.exit_code == 0:
                return
            if result.exit_code != GpuMemoryError.exit_code:
                self._fail(result)
            if result.message.startswith("This training needs"):
                raise GpuMemoryError(result.message)
            if number + 1 < len(self.ladder):
                after = self.ladder[number + 1]
                self.progress.note(
                    f"The GPU's memory ran out with {rung.batch_size} rows at a time; continuing with"
                    f" {after.batch_size} rows, {after.accumulation} times per step"
                    + (
                        ", activations recomputed"
                        if after.gradient_checkpointing and not rung.gradient_checkpointing
                        else ""
                    )
                )
        raise GpuMemoryError(
            f"The GPU's memory is too small for {self.kind}, even with one row at a time; take a larger GPU, or lower"
            f" max_pixels ({self.params.max_pixels}), max_length ({self.params.max_length}) or lora_rank (each of"
            " these changes the result)."
        )

    def _fail(self, result: WorkerResult) -> None:
        known = result.raised()
        if known is not None and result.exit_code > 0:
            raise known
        free = files.free_bytes(self.folder)
        if free < 50_000_000 or "No space left" in result.message:
            raise StorageError(
                f"The disk of {self.folder} is full ({free / 1e6:.0f} MB free); free some space and run the same"
                " command again to resume from the last checkpoint."
            )
        raise known or RuntimeError(f"ms-swift: {result.message}")

    def _attempt(self, rung: BatchPlan, resume: Path | None) -> WorkerResult:
        argv = self._arguments(self.places(resume), rung)
        needed = self.needed if self.options.memory_check and not self.options.deepspeed else None
        with tempfile.TemporaryDirectory(prefix="vasevqa-") as folder:
            spec = Path(folder) / "spec.json"
            TrainingTask(self.kind, argv, needed, *trained_rows.expected(self.rows, self.params)).write(spec)
            environ = environment.child(self._child_settings())
            words = [
                sys.executable,
                "-m",
                CHILD,
                *(["--processes", str(self.processes)] if self.processes > 1 else []),
                str(spec),
            ]
            # The child has its own session, so Ctrl-C reaches only this process. This process then lets the child save
            # a checkpoint.
            child = subprocess.Popen(words, env=environ, start_new_session=True, stdin=subprocess.DEVNULL)
            try:
                code = self._follow(child)
            except BaseException:
                self._stop(child)
                raise
            result = ended(spec, code, "The training")
        self.unrewarded += int(result.figures.get("unrewarded", 0))
        return result

    def _arguments(self, paths: TrainingPaths, plan: BatchPlan) -> list[str]:
        if isinstance(self.params, GrpoParams) and isinstance(self.options, GrpoOptions):
            return swift.grpo(self.params, self.options, paths, plan)
        assert isinstance(self.params, SftParams)
        assert isinstance(self.options, SftOptions)
        return swift.sft(self.params, self.options, paths, plan)

    def _child_settings(self) -> environment.ChildSettings:
        return environment.ChildSettings(
            image_root=self.root,
            device=self.options.device,
            hub=self.options.hub,
            max_pixels=self.params.max_pixels,
            cuda_visible_devices=self.options.cuda_visible_devices,
            gpus=0 if self.options.device == "cpu" else self.processes,
            volume=self.output.volume,
            reward_plugin=self.inputs.get("plugin"),
            vocabulary=self.inputs.get("vocabulary"),
            reward_funcs=tuple(self.params.reward_funcs) if isinstance(self.params, GrpoParams) else (),
            reward_rows=self.inputs["dataset"] / f"{self.kind}.jsonl",
        )

    def _follow(self, child: subprocess.Popen[bytes]) -> int:
        """Report new lines of the log as events until the child ends, and return the child's exit code."""
        log = self.folder / "logging.jsonl"
        at = log.stat().st_size if log.exists() else 0
        while True:
            code = child.poll()
            at = self._tell(log, at)
            if code is not None:
                return code
            self.output.check()
            time.sleep(0.2)

    def _tell(self, log: Path, at: int) -> int:
        if not log.exists():
            return at
        with log.open("rb") as stream:
            stream.seek(at)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.decode(errors="replace").splitlines():
            row = log_row(line)
            if row is None:
                continue
            if not self.seen:
                self.progress.start("training", int(row["max_steps"]), "steps")
            step = int(row["step"])
            self.progress.advance(max(0, step - self.seen))
            self.seen = max(self.seen, step)
            self.progress.event("metrics", **metrics(row, self.params))
        return at + len(whole)

    def _stop(self, child: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to the child, so that the child finishes its step and saves a checkpoint.

        Wait at most options.stop_seconds. Then kill the child and every process that the child started.
        """
        child.send_signal(signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(self.options.stop_seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def metrics(row: LogRow, params: TrainingParams) -> dict[str, float]:
    """Return the measurements in a row of ms-swift's log, under the names that this project uses.

    The names include step, loss, reward, learning_rate, tokens_per_second and seconds_left.
    """
    names = ("loss", "eval_loss", "reward", "reward_std", "kl", "learning_rate")
    found = {name: row[name] for name in names if name in row}
    speed = row.get("train_speed(s/it)")
    if speed:
        found["seconds_left"] = round((row["max_steps"] - row["step"]) * speed)
        if "num_input_tokens_seen" in row and row["step"]:
            found["tokens_per_second"] = round(row["num_input_tokens_seen"] / row["step"] / speed, 1)
        elif "completions/mean_length" in row:
            answers = params.batch_size * params.gradient_accumulation_steps
            found["tokens_per_second"] = round(row["completions/mean_length"] * answers / speed, 1)
    return {"step": row["step"], "max_steps": row["max_steps"], **found}


def train(call: StageCall[TrainingParams, TrainingOptions]) -> None:
    """Train with GRPO if the call's parameters are GrpoParams, and with SFT otherwise.

    Write the folder training/ (checkpoints and logs) and training_summary.json.

    Raise ConfigError, DataError, DeviceError or StorageError for problems that are found before the training. Raise
    GpuMemoryError if the GPU's memory ran out with every plan of the OOM ladder. Raise Interrupted if the child process
    was killed.
    """
    began = time.monotonic()
    training = Training(call)
    rows = training.check()
    training.run()
    last = checkpoints.choose(training.folder, "last")
    checkpoints.tidy(training.folder)
    history = read_log(training.folder / "logging.jsonl")
    curve = [row for row in history if "loss" in row]
    rewards = [row["reward"] for row in history if "reward" in row]
    summary = {
        "rows": rows,
        "dropped": {name: part.summary() for name, part in training.rows.items() if part.left_out},
        "steps": history[-1]["max_steps"] if history else None,
        "last_checkpoint": last.name,
        "first_loss": curve[0]["loss"] if curve else None,
        "last_loss": curve[-1]["loss"] if curve else None,
        "eval_loss": next((row["eval_loss"] for row in reversed(history) if "eval_loss" in row), None),
        "first_reward": rewards[0] if rewards else None,
        "last_reward": rewards[-1] if rewards else None,
        "reward_spread": max((row.get("reward_std", 0.0) for row in history), default=None) if rewards else None,
        "unrewarded": training.unrewarded if rewards else None,
        "adapter_norm": checkpoints.adapter_norm(last) if (last / checkpoints.ADAPTER).is_file() else None,
        "attempts": training.walked,
        "processes": training.processes,
        "seconds": round(time.monotonic() - began, 1),
    }
    call.output.write_json(SUMMARY, summary)
    change = (
        f"reward {rewards[0]:.3f} -> {rewards[-1]:.3f}"
        if rewards
        else f"loss {curve[0]['loss']:.3f} -> {curve[-1]['loss']:.3f}"
        if curve
        else "no curve"
    )
    left_out = f" ({trained_rows.said(training.rows['train'])} left out)" if training.rows["train"].left_out else ""
    if training.unrewarded:
        call.progress.note(f"every reward returned None for {training.unrewarded} answers; they were scored 0")
    if summary["adapter_norm"] == 0:
        call.progress.note("The adapter is still zero: the model learned nothing")
    call.progress.summary(
        f"{summary['steps']} steps over {rows['train']} rows{left_out}, {change}",
        **{name: value for name, value in summary.items() if name != "rows"},
    )
