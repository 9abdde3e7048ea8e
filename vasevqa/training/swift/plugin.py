"""The module that ms-swift loads by --external_plugins.

It registers our rewards, and a user's rewards in either of two forms. A user's file can hold ms-swift's ORM classes, or
register them itself. It can also hold plain functions `def NAME(responses, references): return scores`, as in the
original's README.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swift.rewards import ORM, orms

from vasevqa.errors import ConfigError, DataError
from vasevqa.reward import score as reward
from vasevqa.text import first_line, nearest


def _question(messages: Any) -> str:
    """Return the user's last message as text."""
    turns = [turn for turn in messages or [] if turn.get("role") == "user"]
    said = turns[-1].get("content") if turns else ""
    return said if isinstance(said, str) else ""


class VaseAccuracy(ORM):
    """The reward `external_vase_acc`: how right each completion is."""

    def __call__(self, completions: Sequence[str], solution: Sequence[str], **kwargs: Any) -> list[float]:
        """Return a reward for each completion."""
        messages = kwargs.get("messages") or [None] * len(completions)
        return reward.external_vase_acc(
            completions, solution, kwargs.get("attribute"), [_question(turns) for turns in messages]
        )


class VaseFormat(ORM):
    """The reward `external_vase_format`: how well-formed each completion is."""

    def __call__(self, completions: Sequence[str], **kwargs: Any) -> list[float]:
        """Return a reward for each completion."""
        return [reward.vase_format(completion) for completion in completions]


def _checked(name: str, scores: Any, count: int) -> list[float]:
    try:
        found = [float(score) for score in scores]
    except (TypeError, ValueError):
        raise DataError(
            f"The reward {name} returned {type(scores).__name__} {str(scores)[:60]!r}; it must return a number for each"
            " response."
        ) from None
    if len(found) != count:
        raise DataError(
            f"The reward {name} returned {len(found)} scores for {count} responses; it must return one for each."
        )
    if not all(math.isfinite(score) for score in found):
        raise DataError(
            f"The reward {name} returned {next(score for score in found if not math.isfinite(score))}; scores must be"
            " finite numbers."
        )
    return found


def _wrapped(name: str, function: Callable[..., Any]) -> type[ORM]:
    class UserReward(ORM):
        def __call__(self, completions: Sequence[str], solution: Sequence[str], **kwargs: Any) -> list[float]:
            return _checked(name, function(list(completions), list(solution)), len(completions))

    UserReward.__name__ = UserReward.__qualname__ = name
    return UserReward


def _checking(name: str, kind: type[ORM]) -> type[ORM]:
    class Checked(kind):  # type: ignore[valid-type, misc]
        def __call__(self, completions: Sequence[str], *args: Any, **kwargs: Any) -> list[float]:
            return _checked(name, super().__call__(completions, *args, **kwargs), len(completions))

    Checked.__name__ = Checked.__qualname__ = kind.__name__
    return Checked


def register_user_plugin(path: Path, names: Sequence[str]) -> None:
    """Register the rewards of a user's file under `names`.

    The user's definition replaces ours of the same name. Raise ConfigError if the file can't be imported, or if a name
    is neither in the file nor known to ms-swift.
    """
    before = dict(orms)
    spec = importlib.util.spec_from_file_location("vasevqa_user_rewards", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; give a .py file with reward functions.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        first = first_line(error, 160)
        raise ConfigError(f"{path} can't be imported ({type(error).__name__}: {first}); correct the file.") from None
    registered = {name for name, kind in orms.items() if before.get(name) is not kind}
    defined = {
        name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    }
    classes = {name: value for name, value in defined.items() if inspect.isclass(value) and issubclass(value, ORM)}
    for name in names:
        if name in registered:
            if inspect.isclass(orms[name]):
                orms[name] = _checking(name, orms[name])
        elif name in classes:
            orms[name] = _checking(name, classes[name])
        elif inspect.isfunction(defined.get(name)):
            orms[name] = _wrapped(name, defined[name])
        elif name not in orms:
            functions = [known for known, value in defined.items() if inspect.isfunction(value)]
            raise ConfigError(
                f"{path} defines no reward '{name}', and ms-swift knows"
                f" none.{nearest(name, [*functions, *classes, *orms])}"
            )


orms["external_vase_acc"] = VaseAccuracy
orms["external_vase_format"] = VaseFormat
if os.environ.get("VASEVQA_REWARD_PLUGIN"):
    register_user_plugin(
        Path(os.environ["VASEVQA_REWARD_PLUGIN"]), json.loads(os.environ.get("VASEVQA_REWARD_FUNCS") or "[]")
    )
