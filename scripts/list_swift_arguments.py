"""`python -m scripts.list_swift_arguments`: write vasevqa/training/swift/arguments.txt again.

The arguments come from the installed ms-swift.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version

from vasevqa import files
from vasevqa.training.extra_args import NAMES


def installed() -> str:
    """Return the text of the list: one line for each argument, with the commands that accept the argument."""
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
