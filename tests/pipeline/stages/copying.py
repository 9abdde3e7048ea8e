"""A stage for tests of launchers. It copies words, and files in a control folder make it stop, fail or wait."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import Field

from vasevqa import spec
from vasevqa.errors import DataError, Interrupted


class Params(spec.Params):
    """The text that is added to each word."""

    ending: str = Field("", description="added to each file")


class Options(spec.Options):
    """The folder of the test's control files."""

    control: str = Field("", description="folder of the test's control files")


MODULES = {"copying": "tests.pipeline.stages.copying"}


def _note(control: Path, step: str, what: str) -> None:
    """Append one line to the common log of all attempts."""
    with open(control / "attempts.log", "a") as stream:
        stream.write(f"{step} {what} {os.getpid()}\n")


def _fail(control: Path, step: str) -> None:
    """Remove the first entry of `<step>.fail`, and fail as this entry says."""
    path = control / f"{step}.fail"
    wishes = json.loads(path.read_text()) if path.exists() else []
    if not wishes:
        return
    path.write_text(json.dumps(wishes[1:]))
    wish = wishes[0]
    if isinstance(wish, int):
        sys.exit(wish)
    if wish == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if wish == "bus":
        os.kill(os.getpid(), signal.SIGBUS)
    if wish == "again":
        raise Interrupted("The machine is needed for other work.")
    if wish == "data":
        raise DataError("No word can be read.")
    if wish == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/volume/words")
    if wish == "memory":
        hoard = [bytearray(16 << 20) for _ in range(1 << 16)]
        assert hoard
    if wish.startswith("tell "):
        values = {name: os.environ.get(name) for name in wish.split()[1:]}
        print(f"on stdout {values}")
        print(f"on stderr {values}", file=sys.stderr)
        raise DataError(f"In a message {values}.")
    if wish == "silent":
        os._exit(0)
    if wish == "memory":
        hog = [bytearray(os.urandom(1 << 20)) for _ in range(4096)]
        raise AssertionError(f"{len(hog)} MiB were allocated")
    if wish == "scratch":
        Path("/tmp/scratch").write_bytes(os.urandom(64 << 20))
        signal.pause()
    if wish == "chatter":
        for number in range(3000):
            print(f"line {number}", flush=number % 100 == 0)
        print("long " + "x" * 50_000, flush=True)
        return
    assert wish == "no", wish


def _hold(control: Path, step: str, where: str) -> None:
    """Wait while the file `<step>.<where>` exists. The file `<step>.<where>.reached` shows that the stage waits."""
    path = control / f"{step}.{where}"
    if (control / f"{step}.stubborn").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while path.exists():
        (control / f"{step}.{where}.reached").touch()
        time.sleep(0.01)


def run(call: spec.StageCall[Params, Options]) -> None:
    """Copy the files of the inputs one after the other. Files from an earlier attempt stay."""
    params, options, inputs, output, progress = call.params, call.options, call.inputs, call.output, call.progress
    control = Path(options.control) if options.control else None
    step = output.root.parent.name
    found = [
        (name, path)
        for name in sorted(inputs)
        for path in sorted(inputs[name].iterdir())
        if path.is_file() and path.name != "artifact.json"
    ]
    if control:
        _note(control, step, "begins")
        _hold(control, step, "hold-begin")
    progress.start("copying", len(found), "words")
    for number, (name, path) in enumerate(found):
        target = f"{name}-{path.name}"
        if not (output.root / target).exists():
            text = path.read_text() + params.ending
            output.write_text(target, text)
            if control:
                _note(control, step, f"wrote:{target}")
        progress.advance()
        if control and number == 0:
            _hold(control, step, "hold")
            _fail(control, step)
    progress.summary(f"{len(found)} words", words=len(found))
    if control:
        with contextlib.suppress(OSError):
            _note(control, step, "ends")


STAGE = spec.Stage(
    "copying",
    1,
    Params,
    Options,
    (spec.Input("words", "--words", "the words"), spec.Input("more", "--more", "more words", required=False)),
    "Copies words.",
    resources=spec.Resources(cpus=1, memory="100Mi"),
    run=run,
)


PIPELINE = spec.Pipeline(
    (
        spec.Step("first", STAGE, {"words": "inputs.words"}),
        spec.Step("left", STAGE, {"words": "first"}, passthrough_input="words", preset={"ending": "-left"}),
        spec.Step("right", STAGE, {"words": "first"}, passthrough_input="words", preset={"ending": "-right"}),
        spec.Step("last", STAGE, {"words": "left", "more": "right"}),
    )
)


if __name__ == "__main__":
    from vasevqa.runtime.command import main

    main(STAGE)
