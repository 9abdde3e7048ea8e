"""A stage for tests of the common command of all stages. It only does what its flags request."""

from __future__ import annotations

import errno
import signal
from typing import Literal

from pydantic import Field

from vasevqa import spec
from vasevqa.errors import DataError, GateError


class Params(spec.Params):
    """One field of each kind."""

    upper_limit: float | None = Field(None, ge=0, le=5, description="a number or nothing")
    kind: Literal["plain", "with_underscore"] = Field("plain", description="a choice")
    word: list[str] = Field(default_factory=list, description="words")
    table: dict[str, int] = Field(default_factory=dict, description="a table")
    loud: bool = Field(False, description="a switch")


class Options(spec.Options):
    """How the stage fails."""

    fail: Literal["no", "data", "gate", "full", "passing", "memory", "host", "bug", "hang"] = Field(
        "no", description="how to fail"
    )


def run(call: spec.StageCall[Params, Options]) -> None:
    """Write the parameters, or fail as requested."""
    params, options, output, progress = call.params, call.options, call.output, call.progress
    progress.start("things", 3, "things")
    if options.fail == "data":
        raise DataError("There is no usable image.")
    if options.fail == "gate":
        raise GateError("The result is not good enough.")
    if options.fail == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/volume/x")
    if options.fail == "passing":
        raise ValueError("no image in it") from OSError(errno.EIO, "Input/output error", "/volume/x.jpg")
    if options.fail == "host":
        raise MemoryError
    if options.fail == "memory":
        raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
    if options.fail == "bug":
        raise KeyError("surprise")
    if options.fail == "hang":
        signal.pause()
    progress.advance(3)
    output.write_json("result.json", params.model_dump(mode="json"))
    progress.summary("3 things", count=3)


STAGE = spec.Stage(
    "plain-stage",
    1,
    Params,
    Options,
    (spec.Input("images", "--input-dir", "the images"),),
    "Writes down its parameters.",
    run=run,
)


if __name__ == "__main__":
    from vasevqa.runtime.command import main

    main(STAGE)
