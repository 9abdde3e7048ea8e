"""The plugin with rewards that ms-swift loads through --external_plugins.

The module registers this project's rewards and a user's rewards. A user's reward may be a function, an async function,
a subclass of ms-swift's ORM, any other class, or a callable object. The signature of a reward decides how the reward is
called.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from swift.rewards import ORM, AsyncORM, orms

from vasevqa.errors import ConfigError
from vasevqa.reward import score as reward
from vasevqa.reward import vocabulary
from vasevqa.text import first_line, nearest
from vasevqa.training.signatures import bind
from vasevqa.training.swift.scoring import UserReward, raised_in

MODULE = "vasevqa_user_rewards"


def _question(messages: Any) -> str:
    """Return the user's last message as text."""
    turns = [turn for turn in messages or [] if turn.get("role") == "user"]
    said = turns[-1].get("content") if turns else ""
    return said if isinstance(said, str) else ""


class VaseAccuracy(ORM):
    """The reward `external_vase_acc` for the correctness of each completion."""

    def __call__(self, completions: Sequence[str], solution: Sequence[Any], **kwargs: Any) -> list[float]:
        """Return a reward for each completion."""
        messages = kwargs.get("messages") or [None] * len(completions)
        return reward.external_vase_acc(
            completions, solution, kwargs.get("attribute"), [_question(turns) for turns in messages]
        )


class VaseFormat(ORM):
    """The reward `external_vase_format` for the format of each completion."""

    def __call__(self, completions: Sequence[str], **kwargs: Any) -> list[float]:
        """Return a reward for each completion."""
        return [reward.vase_format(completion) for completion in completions]


class VasePaper(ORM):
    """The reward `external_vase_paper`, which scores captions by the formula of the VaseVQA-3D paper.

    A solution is a mapping from attributes to values, or such a mapping as JSON text. If a solution is a single value,
    the row's column `attribute` names the attribute.
    """

    def __call__(self, completions: Sequence[str], solution: Sequence[Any], **kwargs: Any) -> list[float]:
        """Return a reward for each completion."""
        kinds = kwargs.get("attribute") or [None] * len(completions)
        known = [reward.paper_truth(given, kind) for given, kind in zip(solution, kinds, strict=True)]
        return [
            reward.paper_score(completion, truth).value for completion, truth in zip(completions, known, strict=True)
        ]


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; give a .py file with reward functions.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses and pickle find their module there
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path} can't be imported ({error}); install that package in the image of grpo, or copy the code that the"
            " file needs into that file."
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path} can't be imported ({type(error).__name__}: {first_line(error, 160)}); correct the file."
        ) from None
    return module


def _ready(name: str, given: Any, args: Any) -> Callable[..., Any]:
    """Return an instance of the reward `given` if it is a class. Otherwise return `given` itself.

    Raise ConfigError if no instance of the class can be created.
    """
    if not inspect.isclass(given):
        found: Callable[..., Any] = given
        return found
    kind: Any = given
    try:
        made: Callable[..., Any] = kind(**_init_arguments(name, kind, args))
    except Exception as error:
        raise ConfigError(
            f"The reward {name} can't be created: {raised_in(error)}; correct its __init__, or install what it needs."
        ) from None
    return made


def _init_arguments(name: str, kind: Any, args: Any) -> dict[str, object]:
    """Return the arguments for the constructor of a reward's class: {"args": args}, or {} if it doesn't accept `args`.

    Raise ConfigError if the constructor requires further arguments.
    """
    accepted = inspect.signature(kind)
    variable = any(known.kind is inspect.Parameter.VAR_KEYWORD for known in accepted.parameters.values())
    given: dict[str, object] = {"args": args} if "args" in accepted.parameters or variable else {}
    try:
        accepted.bind(**given)
    except TypeError as error:
        raise ConfigError(
            f"The reward {name} can't be created: its __init__{accepted} gets only `args` ({error}); give"
            " defaults to its other parameters."
        ) from None
    return given


def _signature(name: str, given: Any) -> inspect.Signature:
    called = given.__call__ if inspect.isclass(given) else given
    try:
        found = inspect.signature(called)
    except (TypeError, ValueError):
        raise ConfigError(
            f"The reward {name} has no signature that can be read; write the reward as a function."
        ) from None
    if inspect.isclass(given):
        return found.replace(parameters=list(found.parameters.values())[1:])
    return found


def _registrable(name: str, given: Any, title: str) -> type:
    """Return a class that ms-swift can instantiate and call. `title` is the name of the class in ms-swift's logs."""
    bind(name, _signature(name, given))
    if inspect.isclass(given):
        _init_arguments(name, given, None)
    called = given.__call__ if inspect.isclass(given) or not inspect.isroutine(given) else given

    class Waiting(AsyncORM):
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            super().__init__(args)
            self.reward = UserReward(name, _ready(name, given, args))

        async def __call__(self, completions: Sequence[str], **kwargs: Any) -> list[float | None]:
            return await self.reward.wait(completions, kwargs)

    class Direct(ORM):
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            super().__init__(args)
            self.reward = UserReward(name, _ready(name, given, args))

        def __call__(self, completions: Sequence[str], **kwargs: Any) -> list[float | None]:
            return self.reward.score(completions, kwargs)

    waits = inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(called)
    made: type = Waiting if waits else Direct
    made.__name__ = made.__qualname__ = title
    return made


def register_user_plugin(path: Path, names: Sequence[str]) -> None:
    """Register the rewards of a user's file under `names`.

    If the user and this project define a reward of the same name, the user's reward is used.

    Raise ConfigError if the file can't be imported, or if a reward's signature doesn't accept the arguments that
    ms-swift passes. Also raise ConfigError if a name in `names` is defined neither in the file nor in ms-swift.
    """
    before = dict(orms)
    module = _imported(path)
    found: dict[str, Any] = {}
    for name in names:
        if before.get(name) is not orms.get(name):
            found[name] = orms[name]  # the file registered this reward
        elif callable(vars(module).get(name)):
            found[name] = vars(module)[name]
        elif name not in orms:
            known = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
            raise ConfigError(
                f"{path} defines no reward '{name}', and ms-swift has no such reward.{nearest(name, [*known, *orms])}"
            )
    titles = {name: given.__name__ if inspect.isclass(given) else name for name, given in found.items()}
    for name, given in found.items():
        # ms-swift logs by the class's name, which several rewards may share.
        shared = list(titles.values()).count(titles[name]) > 1
        orms[name] = _registrable(name, given, name if shared else titles[name])


def check_swifts_own(names: Sequence[str]) -> None:
    """Check those rewards in `names` that belong to ms-swift, before a model is loaded.

    Raise ConfigError if a reward needs a package that is not installed.
    """
    for name in names:
        if getattr(orms.get(name), "__module__", "") == ORM.__module__:
            try:
                orms[name](args=None)
            except (AssertionError, ImportError) as error:
                raise ConfigError(
                    f"The reward {name} of ms-swift lacks a package ({first_line(error)}); install it in the image of"
                    " grpo, or remove the reward from reward_funcs."
                ) from None
            except Exception as error:  # the reward needs the training's arguments, which don't exist yet
                print(f"{name} is created later: {first_line(error)}")


orms["external_vase_acc"] = VaseAccuracy
orms["external_vase_format"] = VaseFormat
orms["external_vase_paper"] = VasePaper
if os.environ.get("VASEVQA_VOCABULARY"):
    vocabulary.use(Path(os.environ["VASEVQA_VOCABULARY"]))
asked = json.loads(os.environ.get("VASEVQA_REWARD_FUNCS") or "[]")
if os.environ.get("VASEVQA_REWARD_PLUGIN"):
    register_user_plugin(Path(os.environ["VASEVQA_REWARD_PLUGIN"]), asked)
check_swifts_own(asked)
