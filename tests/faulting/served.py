"""Run commands in forks of one process that has imported everything, since each drill needs two runs.

Each line of the input is a command in JSON: `argv`, `env`, and `said`, the file for its output. The answer is a line
with its exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from typing import Any

from tests.pipeline.drive import make_backend
from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.cli.context import Context
from vasevqa.dataset import build, formats  # noqa: F401 - imported before the forks
from vasevqa.runtime.command import main as stage_main
from vasevqa.stages.build_dataset import STAGE


def run(command: dict[str, Any]) -> None:
    """Run one command in this process, which then ends."""
    said = os.open(command["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update(command["env"])
    sys.argv = command["argv"]
    ctypes.CDLL(None).vase_begin()
    code: Any = 0
    try:
        if sys.argv[0] == STAGE.name:
            stage_main(STAGE, sys.argv[1:])
        else:
            cli.main(Context(PIPELINE, make_backend))
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)


if __name__ == "__main__":
    main()
