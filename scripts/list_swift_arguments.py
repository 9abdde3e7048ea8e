"""`python -m scripts.list_swift_arguments`: write the arguments of ms-swift to vasevqa/training/swift/arguments.txt.

The arguments come from the installed version of ms-swift.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version

from vasevqa import files
from vasevqa.training.extra_args import NAMES


def installed() -> str:
    """Return a text with a line for each argument. The line names the argument and the commands that accept it."""
    from swift.arguments import ExportArguments, RLHFArguments, SftArguments

    known: dict[str, list[str]] = {}
    for command, kind in (("sft", SftArguments), ("rlhf", RLHFArguments), ("export", ExportArguments)):
        for field in dataclasses.fields(kind):
            if field.init:
                known.setdefault(field.name, []).append(command)
    lines = [f"# Arguments of ms-swift {version('ms-swift')}, written by `python -m scripts.list_swift_arguments`."]
    return "\n".join(lines + [" ".join([name, *commands]) for name, commands in sorted(known.items())]) + "\n"


if __name__ == "__main__":
    files.write_text(NAMES, installed())
