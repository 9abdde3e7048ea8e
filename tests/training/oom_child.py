"""The training process with a simulated GPU. In ms-swift's training step, its memory is exhausted by more than two
rows.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import Trainer

from vasevqa.training.swift import worker

real = Trainer.training_step


def training_step(self: Trainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    rows = len(inputs["input_ids"])
    first = int(os.environ["OOM_FROM_STEP"])
    if self.state.global_step >= first and rows > int(os.environ["OOM_ROWS"]):
        if "OOM_IN_A_LIBRARY" in os.environ:  # the message of an H100 with 0.7 GB of free memory
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB for {rows} rows.")
    return real(self, model, inputs, *args, **kwargs)


if __name__ == "__main__":
    Trainer.training_step = training_step
    worker.main()
