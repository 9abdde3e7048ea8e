"""The process that converts a model between Hugging Face and Megatron with ms-swift.

The command is `python -m vasevqa.training.swift.megatron_worker SPEC.json`.

After a conversion to Megatron, the process also reports the differences between the two models. The conversion needs a
separate process, because Megatron sets up global state.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from vasevqa.errors import VaseError
from vasevqa.training.swift.blame import blame
from vasevqa.training.swift.environment import refuse_model_code
from vasevqa.training.swift.messages import ConversionTask, WorkerResult, result_of
from vasevqa.training.swift.pictures import use_our_decoder
from vasevqa.training.swift.worker import die_with_parent

_FIGURES = re.compile(r"mean_diff: ([0-9.eE+-]+|nan|inf), max_diff: ([0-9.eE+-]+|nan|inf)")
_WITH_LOSS = re.compile(
    r"mean_diff \(with loss\): ([0-9.eE+-]+|nan|inf), max_diff \(with loss\): ([0-9.eE+-]+|nan|inf)"
)
_TOKENS = re.compile(r"token_diff: ([0-9]+)")
_ANSWERED = re.compile(r"hf_tokens: \[([0-9, ]*)\]")


class _Tee(io.TextIOBase):
    """A stream that writes ms-swift's output to the log, and also stores the output.

    Figures are read from the stored output.
    """

    def __init__(self, out: Any) -> None:
        self._out, self.text = out, io.StringIO()

    def write(self, text: str) -> int:
        self.text.write(text)
        return int(self._out.write(text))

    def flush(self) -> None:
        self._out.flush()


def _local_image(image: str) -> None:
    """Make ms-swift's precision check use the file `image`.

    By default the check downloads a picture from the internet.
    """
    from swift.megatron.utils import convert_utils

    real = convert_utils.get_examples

    def examples(kind: str) -> Any:
        example = real(kind)
        if "images" in example:
            example["images"] = [image]
        return example

    convert_utils.get_examples = examples


def work(task: ConversionTask) -> WorkerResult:
    """Convert a model as `task` describes, and return the result.

    The figures of the precision check are read from ms-swift's output.
    """
    die_with_parent()
    tee = _Tee(sys.stdout)
    try:
        refuse_model_code()
        use_our_decoder()
        from swift import export_main

        _local_image(task.image)
        with contextlib.redirect_stdout(tee):
            export_main(task.argv)
    except VaseError as error:
        return WorkerResult.of(error)
    except Exception as error:
        traceback.print_exc()
        return blame(error, task.argv[task.argv.index("--model") + 1] if "--model" in task.argv else "")
    said = tee.text.getvalue()
    figures: dict[str, float] = {}
    if (match := _FIGURES.search(said)) is not None:
        figures |= {"mean_difference": float(match[1]), "max_difference": float(match[2])}
    if (match := _WITH_LOSS.search(said)) is not None:
        figures |= {"mean_difference_of_answer": float(match[1]), "max_difference_of_answer": float(match[2])}
    if (match := _TOKENS.search(said)) is not None:
        figures["tokens_that_differ"] = int(match[1])
        if (listed := _ANSWERED.search(said)) is not None:
            figures["agreement"] = 1 - int(match[1]) / max(1, len(listed[1].split(",")))
    return WorkerResult(0, figures=figures)


def main() -> None:
    """Read the task, convert the model, write the result next to the task, and exit with the result's exit code."""
    spec_file = Path(sys.argv[1])
    result = work(ConversionTask.read(spec_file))
    result.write(result_of(spec_file))
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
