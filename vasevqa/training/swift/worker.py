"""The process that trains with ms-swift.

It adds a callback of our own to ms-swift. With the callback, a stop saves a checkpoint first. The process also tells
running out of GPU memory apart from other errors.

Run it as `python -m vasevqa.training.swift.worker SPEC.json`. With `--processes N`, torch's launcher starts one process
for each GPU.

The process that holds the lease never trains itself. A training that is killed therefore ends no process but its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, GpuMemoryError, Interrupted, VaseError, out_of_gpu_memory
from vasevqa.text import first_line
from vasevqa.training.swift.environment import refuse_model_code
from vasevqa.training.swift.messages import TrainingTask, WorkerResult, result_of

PR_SET_PDEATHSIG = 1


class _State:
    """The state that the signal handler and the callback share."""

    stop = False
    training = False
    stepping = False  # inside the optimizer's step: weights may be half updated
    trainer: Any = None


STATE = _State()


def die_with_parent() -> None:
    """On Linux, make the system kill this process when its parent ends.

    Without the parent, nothing protects the output from a second writer.
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
        """The callback that saves and stops at the end of a step after SIGTERM.

        It also keeps the trainer, and notes whether the optimizer is in the middle of a step.
        """

        def __init__(self, args: Any, trainer: Any) -> None:
            super().__init__(args, trainer)
            STATE.trainer = trainer

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.training = True

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.stepping = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            STATE.stepping = False
            if STATE.stop and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

    callbacks_map["vasevqa"] = Callback


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
        raise ConfigError("ms-swift can't read its arguments (the log says which); correct extra_args.") from None
    except (ValueError, TypeError, AssertionError, ImportError, ModuleNotFoundError) as error:
        traceback.print_exc()
        raise ConfigError(
            f"ms-swift refuses its arguments ({failure_of(error)}); correct the parameter or extra_args."
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
            f"This training needs about {need / 1e9:.0f} GB of GPU memory, and {free / 1e9:.0f} of {total / 1e9:.0f} GB"
            " are free; take a larger GPU, lower max_length or max_pixels, or set memory_check to false to try anyway."
        )


def _save_after_oom() -> None:
    """Save a checkpoint of the last whole step, so that the next plan of the ladder can continue from it.

    With several processes nothing is saved, because one process alone can't save.
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
        traceback.print_exc()  # the checkpoint before that one will do


def failure_of(error: BaseException) -> str:
    """Return the kind and the first line of a foreign error, as a part of a sentence."""
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"


def work(task: TrainingTask) -> WorkerResult:
    """Train as `task` says, and return how the training ended."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage decides
    try:
        _check_memory(task.gpu_bytes)
        refuse_model_code()
        _register_callback()
        _pipeline(task.kind, task.argv).main()
    except VaseError as error:
        return WorkerResult(error.exit_code, str(error))
    except Exception as error:
        traceback.print_exc()
        if out_of_gpu_memory(error):
            error.__traceback__ = None  # its frames hold the activations
            _save_after_oom()
            return WorkerResult(GpuMemoryError.exit_code, failure_of(error))
        return WorkerResult(1, failure_of(error))
    if STATE.stop and STATE.trainer.state.global_step < STATE.trainer.state.max_steps:
        return WorkerResult(Interrupted.exit_code, "stopped and saved")
    return WorkerResult(0)


def main() -> None:
    """Read the spec, train, write the result beside the spec, and exit with the result's exit code."""
    if sys.argv[1] == "--processes":
        die_with_parent()  # kept through exec
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
    # Of several processes the one whose memory ran out tells why; the others only lost it.
    if code == GpuMemoryError.exit_code or (not result.exists() and (code or os.environ.get("RANK", "0") == "0")):
        ended.write(result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # after an error CUDA's and the dataloader's threads may never end


if __name__ == "__main__":
    main()
