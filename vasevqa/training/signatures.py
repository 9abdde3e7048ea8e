"""Find out from a reward's signature how to call the reward.

The known parameter names come from TRL (https://huggingface.co/docs/trl/grpo_trainer), from ms-swift, and from the
README of the original VaseVQA project.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass

from vasevqa.errors import ConfigError

COMPLETIONS = {
    "completions", "completion", "responses", "response", "generations", "predictions", "preds", "y_pred", "outputs"
}  # fmt: skip
SOLUTIONS = {
    "solution", "solutions", "references", "reference", "answer", "gold", "ground_truth", "ground_truths", "truth",
    "truths", "targets", "labels", "y_true"
}  # fmt: skip
PASSED = {  # names of further arguments, from ms-swift, or from this project under TRL's names
    "prompts", "completion_ids", "messages", "images", "prompt_id", "request_id", "finish_reason", "is_truncated",
    "rollout_infos", "response_token_ids", "trainer_state"
}  # fmt: skip
EXPECTED = (
    "`def NAME(completions, solution, **kwargs)` or `def NAME(responses, references)`, which get a list each and return"
    " a number or None for each completion"
)


@dataclass(frozen=True)
class Binding:
    """The arguments for the parameters of a reward.

    `positional` and `keywords` hold the source of each argument: `completions`, `solution` or a column of the rows. If
    `rest` is True, the reward gets all remaining columns as keyword arguments.
    """

    positional: tuple[str, ...]
    keywords: dict[str, str]
    rest: bool

    @property
    def sources(self) -> set[str]:
        """The names of the arguments that the reward requires: `completions`, `solution` or columns of the rows."""
        return {*self.positional, *self.keywords.values()}


def bind(name: str, signature: inspect.Signature, columns: Collection[str] | None = None) -> Binding:
    """Return the arguments with which to call the reward `name`, according to its signature.

    The name of a parameter decides its argument. If no parameter has a known name for the completions, the order of the
    parameters with unknown names and without defaults decides: the first gets the completions, and the second gets the
    solutions. `columns` holds the names of the rows' columns. If `columns` is given, each of the other parameters must
    have the name of a column, or a default.

    Raise ConfigError with the expected signature if the reward can't be called in this way.
    """
    takes = _Parameters(list(signature.parameters.values()))
    free = [source for source in ("completions", "solution") if source not in map(_source_in(columns), takes.named)]
    unnamed = "completions" in free  # otherwise a misspelt column would get the solutions
    positional: list[str] = []
    keywords: dict[str, str] = {}
    if takes.anything and not takes.named:  # def f(*args), perhaps with **kwargs
        return Binding(tuple(free[:1] if takes.rest else free), {}, takes.rest)
    for parameter in takes.named.values():
        source = _source_in(columns)(parameter.name)
        if source is None and parameter.default is inspect.Parameter.empty:
            if free and unnamed and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                source = free.pop(0)
            elif columns is None:
                source = parameter.name  # this may be a column; without the rows it can't be checked
            else:
                known = ", ".join(sorted({*columns} - PASSED))
                raise _refused(
                    name, signature, f"nothing is passed for '{parameter.name}' (columns of the rows: {known})"
                )
        if source is None:
            continue
        if source == "completions" and parameter.annotation in (str, "str"):
            raise _refused(name, signature, f"'{parameter.name}' takes one text, but a reward gets a list of texts")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(source)
        else:
            keywords[parameter.name] = source
    if "completions" not in {*positional, *keywords.values()}:
        if not takes.rest:
            raise _refused(name, signature, "no parameter takes the completions")
        keywords["completions"] = "completions"
    return Binding(tuple(positional), keywords, takes.rest)


class _Parameters:
    """The named parameters of a signature.

    `anything` is True if the signature has `*args`. `rest` is True if the signature has `**kwargs`.
    """

    def __init__(self, parameters: list[inspect.Parameter]) -> None:
        kinds = {parameter.kind for parameter in parameters}
        self.anything = inspect.Parameter.VAR_POSITIONAL in kinds
        self.rest = inspect.Parameter.VAR_KEYWORD in kinds
        more = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self.named = {parameter.name: parameter for parameter in parameters if parameter.kind not in more}


def _source_in(columns: Collection[str] | None) -> Callable[[str], str | None]:
    """Return a function that maps a parameter's name to the source of the argument. An unknown name gives None."""

    def source(name: str) -> str | None:
        if name in COMPLETIONS:
            return "completions"
        if name in PASSED or (columns is not None and name in columns):
            return name
        return "solution" if name in SOLUTIONS else None

    return source


def _refused(name: str, signature: inspect.Signature, why: str) -> ConfigError:
    return ConfigError(f"The reward {name}{signature} can't be called: {why}; write {EXPECTED}.")
