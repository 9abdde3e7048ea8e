"""Check what can be checked before a model is loaded, because loading takes minutes.

The questions are whether model and dataset are whole, and whether memory and disk space suffice.
"""

from __future__ import annotations

from pathlib import Path

from vasevqa import files
from vasevqa.errors import StorageError
from vasevqa.models import Model
from vasevqa.training.estimate import GB, checkpoint_bytes
from vasevqa.training.params import TrainingParams


def check_disk(folder: Path, model: Model, params: TrainingParams) -> None:
    """Raise StorageError if the checkpoints don't fit on the disk.

    These are the checkpoints that are kept, and the one that is being written.
    """
    need, free = checkpoint_bytes(model, params) * (params.save_total_limit + 1), files.free_bytes(folder)
    if free < need:
        raise StorageError(
            f"The disk of {folder} has {free / GB:.1f} GB free and {params.save_total_limit} checkpoints need"
            f" {need / GB:.1f} GB; free some space or lower save_total_limit."
        )
