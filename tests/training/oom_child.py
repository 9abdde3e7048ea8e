"""The training process with a GPU whose memory runs out, in ms-swift's own training step, whenever more than two rows
are at once in it.
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
        if "OOM_IN_A_LIBRARY" in os.environ:  # as an H100 with 0.7 GB to spare said it
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB for {rows} rows.")
    return real(self, model, inputs, *args, **kwargs)


if __name__ == "__main__":
    Trainer.training_step = training_step
    worker.main()
