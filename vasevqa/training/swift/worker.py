"""The process that trains with ms-swift.

The process adds a callback of this project to ms-swift. If the training is stopped, the callback first saves a
checkpoint. The process also reports whether an error means that the GPU's memory is full.

The command is `python -m vasevqa.training.swift.worker SPEC.json`. With `--processes N SPEC.json`, torch's launcher
starts N processes, one for each GPU.

A stage starts this process. The stage itself holds the artifact's lease, and continues if the training is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from vasevqa.confidential import Masker
from vasevqa.errors import ConfigError, GateError, GpuMemoryError, Interrupted, VaseError
from vasevqa.text import filtered_output
from vasevqa.training.swift.blame import blame, failure_of, is_ours
from vasevqa.training.swift.environment import keep_copies_writable, refuse_model_code
from vasevqa.training.swift.messages import TrainingTask, WorkerResult, result_of
from vasevqa.training.swift.pictures import use_our_decoder

PR_SET_PDEATHSIG = 1


class _State:
    """The state that the signal handler and the callback share."""

    stop = False
    training = False
    stepping = False  # inside the optimizer's step: weights may be half updated
    trainer: Any = None
    answers = unrewarded = 0  # of GRPO: all answers, and answers without any reward
    rows: tuple[int | None, int | None] = (None, None)  # expected rows of training and validation


STATE = _State()


def die_with_parent() -> None:
    """On Linux, make the system kill this process when its parent ends.

    The parent holds the artifact's lease. After the parent's end, a new training could write to the same output, so
    this process must not continue.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _on_sigterm(signum: int, frame: object) -> None:
    if not STATE.training:
        os._exit(Interrupted.exit_code)  # nothing to save yet
    STATE.stop = True


def _register_callback() -> None:
    from swift.callbacks import TrainerCallback, callbacks_map

    class Callback(TrainerCallback):
        """After SIGTERM, this callback saves a checkpoint at the end of the step, and then stops the training.

        The callback also stores the trainer, and notes whether the optimizer is in the middle of a step.
        """

        def __init__(self, args: Any, trainer: Any) -> None:
            super().__init__(args, trainer)
            STATE.trainer = trainer

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.training = True
            if hasattr(STATE.trainer, "num_generations"):  # only this trainer samples answers
                sample_no_pictures(STATE.trainer.model)
            check_counts(STATE.trainer.train_dataset, STATE.trainer.eval_dataset, STATE.rows)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.stepping = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.stepping = False
            if STATE.stop and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

    callbacks_map["vasevqa"] = Callback


def sample_no_pictures(model: Any) -> None:
    """Let `model` never generate the token that stands for a picture or a video.

    Such a token in a sampled answer would ask for one more picture than the row has, and would end the training.
    """
    places = {getattr(model.config, name, None) for name in ("image_token_id", "video_token_id")} - {None}
    settings = getattr(model, "generation_config", None)
    if places and settings is not None:
        settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), *places})


def _count_unrewarded() -> None:
    """Count the answers for which every reward returned None. ms-swift and TRL give such an answer the score 0."""
    from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

    real = GRPOTrainer._compute_rewards_per_func

    def counted(trainer: Any, samples: Any) -> Any:
        rewards = real(trainer, samples)  # (answers of all processes, rewards)
        STATE.answers += len(rewards)
        STATE.unrewarded += int(rewards.isnan().all(dim=1).sum())
        return rewards

    GRPOTrainer._compute_rewards_per_func = counted


def check_counts(train: Any, validation: Any, expected: tuple[int | None, int | None]) -> None:
    """Raise GateError if the number of rows that ms-swift reads differs from the `expected` number.

    `expected` holds the numbers for training and validation. A number that is None is not checked. For a packed
    dataset, the rows inside the packs are counted.

    Also raise GateError if ms-swift would use other rows in place of rows that it can't encode.
    """
    for name, found, wanted in zip(("training", "validation"), (train, validation), expected, strict=True):
        if wanted is None:
            continue
        inside = found
        while hasattr(inside, "packed_idx"):
            inside = inside.dataset
        count = 0 if inside is None else len(inside)
        if count != wanted:
            raise GateError(
                f"ms-swift reads {count} {name} rows, but {wanted} were counted before; see the log for the rows"
                " that it left out."
            )
        if getattr(inside, "n_try_fetch", 1) != 1:
            raise GateError(
                f"ms-swift would replace {name} rows that it can't encode; install the version that"
                " locks/training.txt names."
            )


def _pipeline(kind: str, argv: list[str]) -> Any:
    """Return ms-swift's pipeline object.

    Raise ConfigError if ms-swift's own parser refuses the arguments.
    """
    from swift.utils import parse_args

    if kind == "sft":
        from swift.arguments import SftArguments as Arguments
        from swift.pipelines.train.sft import SwiftSft as Pipeline
    else:
        from swift.arguments import RLHFArguments as Arguments
        from swift.pipelines.train.rlhf import SwiftRLHF as Pipeline
    try:
        arguments, left = parse_args(Arguments, argv)
    except VaseError:
        raise
    except SystemExit:
        raise ConfigError("ms-swift can't read its arguments (see the log); correct extra_args.") from None
    except (ValueError, TypeError, AssertionError, ImportError, ModuleNotFoundError) as error:
        # While ms-swift reads the arguments, it also imports the rewards and reads the model's folder.
        if is_ours(error) or blame(error, "").exit_code != 1:
            raise
        traceback.print_exc()
        raise ConfigError(
            f"ms-swift refuses its arguments ({failure_of(error)}); correct the parameters or extra_args."
        ) from None
    if left:
        raise ConfigError(f"ms-swift has no argument {left[0]}; correct extra_args.")
    return Pipeline(arguments)


def _check_memory(need: int | None) -> None:
    import torch

    if not need or not torch.cuda.is_available():
        return
    free, total = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))
    if free < need:
        raise GpuMemoryError(
            f"This training needs about {need / 1e9:.0f} GB of GPU memory, but {free / 1e9:.0f} of {total / 1e9:.0f} GB"
            " are free; take a larger GPU, lower max_length or max_pixels, or set memory_check to false to try anyway."
        )


def _save_after_oom() -> None:
    """Save a checkpoint of the last complete step. A batch plan that needs less memory can then continue from it.

    With several processes, nothing is saved, because a checkpoint needs all processes.
    """
    trainer = STATE.trainer
    if trainer is None or STATE.stepping or not trainer.state.global_step or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    import torch

    trainer.model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        if not (Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}").exists():
            trainer._save_checkpoint(trainer.model, trial=None)
    except Exception:
        traceback.print_exc()  # the previous checkpoint is used instead


def _given(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1] if name in argv else ""


def sentence_of(error: VaseError) -> str:
    """Return the error's sentence without a traceback.

    If the error was raised in a process that loads data, torch puts the traceback of that process before the sentence.
    """
    return str(error).rpartition(f"{type(error).__qualname__}: ")[2].strip()


def work(task: TrainingTask) -> WorkerResult:
    """Train a model as `task` describes, and return the result."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage, not Ctrl-C, stops this process
    STATE.rows = task.rows, task.validation_rows
    try:
        _check_memory(task.gpu_bytes)
        refuse_model_code()
        keep_copies_writable()
        use_our_decoder()
        _register_callback()
        if task.kind == "grpo":
            _count_unrewarded()
        _pipeline(task.kind, task.argv).main()
    except VaseError as error:
        return WorkerResult.of(error, sentence_of(error))
    except Exception as error:
        traceback.print_exc()
        result = blame(error, _given(task.argv, "--model"), _given(task.argv, "--dataset"))
        if result.exit_code == GpuMemoryError.exit_code:
            error.__traceback__ = None  # the traceback's frames keep the activations in memory
            _save_after_oom()
        return result
    if STATE.stop and STATE.trainer.state.global_step < STATE.trainer.state.max_steps:
        return WorkerResult.of(
            Interrupted("The training was stopped and saved a checkpoint; run the same command again to resume.")
        )
    return WorkerResult(0, figures={"answers": STATE.answers, "unrewarded": STATE.unrewarded})


def main() -> None:
    """Read the task, train the model, write the result next to the task, and exit with the result's exit code."""
    if sys.argv[1] == "--processes":
        die_with_parent()  # the setting stays after exec
        processes, spec_file = sys.argv[2:]
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            processes,
            "-m",
            "vasevqa.training.swift.worker",
            spec_file,
        ]
        os.execv(sys.executable, [sys.executable, *launcher])  # noqa: S606 - an argument list of our own
    spec_file = sys.argv[1]
    ended = work(TrainingTask.read(Path(spec_file)))
    result, code = result_of(Path(spec_file)), ended.exit_code
    # The process that ran out of memory reports the cause. All other processes only report a lost connection.
    if code == GpuMemoryError.exit_code or (not result.exists() and (code or os.environ.get("RANK", "0") == "0")):
        ended.write(result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # after an error CUDA's and the dataloader's threads may never end


if __name__ == "__main__":
    with filtered_output(Masker(os.environ)):
        main()
