"""A process of ms-swift that fails at its first call, as the variable ENDING says. Its own main writes the result."""

from __future__ import annotations

import errno
import importlib
import os
from typing import NoReturn

from vasevqa.errors import TransientStorageError

FIRST_CALLS = {"worker": "_check_memory", "lengths": "count", "megatron_worker": "refuse_model_code"}


def fail(*given: object) -> NoReturn:
    ending = os.environ["ENDING"]
    if ending == "stopped":
        os._exit(75)
    if ending == "killed":
        os.kill(os.getpid(), 9)
    raise {
        "storage": OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/volume/x"),
        "told storage": TransientStorageError("Could not read /volume/x: the storage is ill (ESTALE)."),
        "memory": MemoryError(),
    }[ending]


if __name__ == "__main__":
    name = os.environ["WORKER"]
    module = importlib.import_module(f"vasevqa.training.swift.{name}")
    setattr(module, FIRST_CALLS[name], fail)
    module.main()
