"""Start runs and `vasevqa clean` at the same moment, many times.

The commands are forks of one process that has imported everything. Usage: python -m tests.pipeline.racing RECIPE ROUNDS
STARTS, with the volume in VASEVQA_VOLUME. The output is a JSON line with the exit code, the words and the text of each
command that failed, and of each `clean`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.pipeline.drive import make_backend
from tests.pipeline.stages.copying import PIPELINE
from vasevqa import cli
from vasevqa.cli import clean, run  # noqa: F401 - imported before the forks
from vasevqa.cli.context import Context


def begin(words: list[str], said: Path) -> int:
    """Fork a process that waits for the start signal, and then runs `vasevqa WORDS`. Return its id."""
    pid = os.fork()
    if pid:
        return pid
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["vasevqa", *words]
    code = 0
    try:
        cli.main(Context(PIPELINE, make_backend))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Run the rounds. In each, `clean` removes all finished runs while the starts use the same artifacts."""
    recipe, rounds, starts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    draw, failed = random.Random(20), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            commands = [
                ["run", recipe, "--to", "left", "--set", f"last.ending={number}-{start}"] for start in range(starts)
            ]
            commands += [["clean", "--keep-last", "0", "--yes"]] * 2
            draw.shuffle(commands)
            processes = [
                (begin(words, Path(folder) / f"{place}"), Path(folder) / f"{place}", words)
                for place, words in enumerate(commands)
            ]
            for pid, said, words in processes:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if code or words[0] == "clean":
                    failed.append([code, words, said.read_text()])
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
