"""Call a user's reward, check the scores that it returns, and report its errors.

The reward gets the arguments that its signature asks for. If possible, an error's message names the row of the dataset
for which the reward failed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError
from vasevqa.text import IMAGE_TAG, first_line
from vasevqa.training.signatures import bind
from vasevqa.training.swift.blame import full

SHOWN = 60  # characters of a question, an answer or a score in a message
Columns = Mapping[str, Any]  # column -> one value per completion; trainer_state is one object


class UserReward:
    """A user's reward. It calls `function` to score completions. Error messages contain `name`."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self._function = name, function

    def score(self, completions: Sequence[str], columns: Columns) -> list[float | None]:
        """Return a number for each completion. The number is None if the reward doesn't apply to the completion.

        Raise ConfigError if the reward raises an error, or if it doesn't return a number or None for each completion.
        If possible, the message names the row.
        """
        try:
            returned = self._call(completions, columns)
            if inspect.isawaitable(returned):
                returned = asyncio.run(_awaited(returned))
            returned = _as_list(returned)
        except (Exception, SystemExit) as error:
            if isinstance(error, ConfigError) or full(error):
                raise
            raise self._blamed(error, self._failing_row(completions, columns), completions, columns) from error
        return self._checked(returned, completions, columns)

    async def wait(self, completions: Sequence[str], columns: Columns) -> list[float | None]:
        """Do the same as `score` for an async reward. While the reward waits, any other async reward can run."""
        try:
            returned = _as_list(await self._call(completions, columns))
        except (Exception, SystemExit) as error:
            if isinstance(error, ConfigError) or full(error):
                raise
            # In a thread, because the search runs its own event loop.
            row = await asyncio.to_thread(self._failing_row, completions, columns)
            raise self._blamed(error, row, completions, columns) from error
        return self._checked(returned, completions, columns)

    def _call(self, completions: Sequence[str], columns: Columns) -> Any:
        known = _trl_names(columns)
        binding = bind(self.name, inspect.signature(self._function), {*known, "solution"})
        given = {**known, "completions": list(completions)}
        missing = sorted(binding.sources - given.keys())
        if missing:
            raise ConfigError(
                f"The reward {self.name} needs the column '{missing[0]}', which the rows of the dataset don't have; add"
                " it to grpo.jsonl, or give the parameter a default."
            )
        keywords = {parameter: given[source] for parameter, source in binding.keywords.items()}
        if binding.rest:
            taken = {*binding.positional, *binding.keywords.values()}
            keywords |= {name: value for name, value in given.items() if name not in taken | keywords.keys()}
        return self._function(*(given[source] for source in binding.positional), **keywords)

    def _failing_row(self, completions: Sequence[str], columns: Columns) -> int | None:
        """Call the reward with each completion alone, and return the index of the first completion that fails.

        Return None if no call fails.
        """
        for number in range(len(completions)):
            alone = {
                name: [value[number]] if _is_column(value, len(completions)) else value
                for name, value in columns.items()
            }
            try:
                returned = self._call([completions[number]], alone)
                if inspect.isawaitable(returned):
                    returned = asyncio.run(_awaited(returned))
                _as_list(returned)
            except (Exception, SystemExit):
                return number
        return None

    def _blamed(
        self, error: BaseException, row: int | None, completions: Sequence[str], columns: Columns
    ) -> ConfigError:
        where = (
            f" for {described(row, completions, columns)}"
            if row is not None
            else f" for {len(completions)} completions, of which the first is {described(0, completions, columns)}"
        )
        hint = "correct it"
        if isinstance(error, TypeError) and "string indices" in str(error):
            hint = "a completion is a text here, not a list of messages: use it as it is"
        elif isinstance(error, AttributeError | TypeError) and not isinstance(columns.get("solution", [""])[0], str):
            hint = "a solution is here the row's value, which is not a text: read the text from the value"
        return ConfigError(f"The reward {self.name} raised {raised_in(error)}{where}; {hint}.")

    def _checked(self, returned: Any, completions: Sequence[str], columns: Columns) -> list[float | None]:
        if not isinstance(returned, list):
            raise ConfigError(
                f"The reward {self.name} returned {type(returned).__name__} {str(returned)[:SHOWN]!r}; it must return a"
                " list with one number per completion."
            )
        if len(returned) != len(completions):
            raise ConfigError(
                f"The reward {self.name} returned {len(returned)} scores for {len(completions)} completions, of which"
                f" the first is {described(0, completions, columns)}; it must return one score per completion."
            )
        return [self._number(value, row, completions, columns) for row, value in enumerate(returned)]

    def _number(self, value: Any, row: int, completions: Sequence[str], columns: Columns) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(
                f"The reward {self.name} returned {str(value)[:SHOWN]!r} for"
                f" {described(row, completions, columns)}; it must return a finite number, or None where it doesn't"
                " apply."
            )
        return number


def raised_in(error: BaseException) -> str:
    """Return the class name and first line of an error, and the line of the user's file that raised the error."""
    said = first_line(error)
    kind = type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _plugin()]
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return (kind if said == kind else f"{kind}: {said}") + place


def _plugin() -> str:
    return os.environ.get("VASEVQA_REWARD_PLUGIN", "")


async def _awaited(waiting: Any) -> Any:
    return await waiting


def _as_list(returned: Any) -> Any:
    """Return a reward's result as a list if the result is a sequence or an array. Return any other result unchanged."""
    if isinstance(returned, str | bytes | Mapping | set | frozenset) or not hasattr(returned, "__iter__"):
        return returned
    if hasattr(returned, "tolist"):  # arrays of numpy, torch or pandas
        return returned.tolist()
    return list(returned)


def _is_column(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count


def _trl_names(columns: Columns) -> Columns:
    """Return the columns, with TRL's columns `prompts` and `completion_ids` added from columns of ms-swift."""
    prompts = [
        messages[:-1] if messages and messages[-1].get("role") == "assistant" else messages
        for messages in columns.get("messages") or []
    ]
    return {"prompts": prompts, "completion_ids": columns.get("response_token_ids"), **columns}


def described(row: int, completions: Sequence[str], columns: Columns) -> str:
    """Return a description of a completion: the row of the dataset, the question, and the completion (shortened)."""
    messages = _at(columns.get("messages"), row) or []
    asked = next((turn.get("content") for turn in reversed(messages) if turn.get("role") == "user"), "")
    question = str(asked).replace(IMAGE_TAG, "").strip()
    line = _line(str(asked), _at(columns.get("solution"), row), _at(columns.get("images"), row))
    return (
        f"{line or 'a row'}"
        + (f" ({question[:SHOWN]!r})" if question else "")
        + f" and the completion {completions[row][:SHOWN]!r}"
    )


def _at(column: Any, row: int) -> Any:
    return column[row] if isinstance(column, list | tuple) and row < len(column) else None


def _line(question: str, solution: Any, images: Any) -> str:
    """Return `grpo.jsonl, line N` for the first row with this question, solution and image.

    Return '' if there is no such row.
    """
    path = Path(os.environ.get("VASEVQA_REWARD_ROWS", ""))
    if not path.is_file():
        return ""
    name = Path(_path_of(images)).name
    with path.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, 1):
            row = json.loads(text) if text.strip() else {}
            asked = [turn.get("content") for turn in row.get("messages") or [] if turn.get("role") == "user"]
            same_image = not name or Path(_path_of(row.get("images"))).name == name
            same_truth = isinstance(solution, dict | list) or row.get("solution") == solution
            if asked and asked[-1] == question and same_truth and same_image:
                return f"{path.name}, line {number}"
    return ""


def _path_of(images: Any) -> str:
    first = images[0] if isinstance(images, list) and images else images
    return str(first.get("path") or "") if isinstance(first, dict) else str(first or "")
