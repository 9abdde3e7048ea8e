"""Select the steps that a recipe runs. Plans, doctor and the list of images use the selection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from vasevqa.errors import ConfigError
from vasevqa.pipeline.recipe import Recipe
from vasevqa.spec import Pipeline, Source
from vasevqa.text import nearest

Wiring = Mapping[str, Mapping[str, Source]]  # step -> its input -> the actual source


@dataclass(frozen=True)
class Selection:
    """The steps to run (--from, --to, --only) and the steps to repeat (--refresh)."""

    first: str | None = None
    last: str | None = None
    only: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()

    def to_args(self) -> list[str]:
        """Return the same selection as command-line arguments."""
        words: list[str] = []
        for option, value in (("--from", self.first), ("--to", self.last)):
            words += [option, value] if value else []
        for option, names in (("--only", self.only), ("--refresh", self.refresh)):
            words += [word for name in names for word in (option, name)]
        return words

    def check(self, pipeline: Pipeline) -> None:
        """Raise ConfigError for a name that is not the name of a step."""
        for name in (self.first, self.last, *self.only, *self.refresh):
            if name is not None and name not in pipeline.names:
                raise ConfigError(f"There is no step '{name}'.{nearest(name, pipeline.names)}")


@dataclass(frozen=True)
class SelectedSteps:
    """The selected steps, and the inputs of all steps.

    `order` holds every step of the pipeline. Each step comes after the steps whose artifacts it reads. `wiring` holds
    the actual source of each input.
    """

    names: tuple[str, ...]
    order: tuple[str, ...]
    wiring: Wiring
    skipped: Mapping[str, str]  # step -> why

    def upstream(self, name: str) -> set[str]:
        """Return the steps whose artifacts the step `name` reads, directly or through other steps."""
        return _upstream(name, self.wiring)

    @property
    def needed(self) -> tuple[str, ...]:
        """The selected steps and all their upstream steps, in order."""
        read = {other for name in self.names for other in self.upstream(name)}
        return tuple(name for name in self.order if name not in self.skipped and (name in self.names or name in read))


def select_steps(recipe: Recipe, pipeline: Pipeline, selection: Selection | None = None) -> SelectedSteps:
    """Return the steps that `recipe` runs.

    Raise ConfigError for an unknown step, for a cycle of steps, and if no step is left.
    """
    selection = selection or Selection()
    selection.check(pipeline)
    skipped = {name: _why_skipped(pipeline.step(name).passthrough_input) for name in recipe.skip}
    replaced = [name for name in recipe.inputs if name in pipeline.names]
    skipped |= {name: f"replaced by the input {recipe.inputs[name]}" for name in replaced}
    wiring = {
        step.name: {name: _resolve(source, pipeline, recipe) for name, source in step.sources().items()}
        for step in pipeline.steps
    }
    order = _order(wiring, pipeline)
    names = _choose(order, wiring, selection, recipe.to, skipped)
    return SelectedSteps(tuple(names), tuple(order), wiring, skipped)


def _why_skipped(passthrough: str | None) -> str:
    return f"skipped: passes through its {passthrough}" if passthrough else "skipped: no step needs its result"


def _resolve(source: Source, pipeline: Pipeline, recipe: Recipe) -> Source:
    """Return the actual source of an input.

    If the source is a step that a recipe input replaces, the recipe input is the actual source. If the source is a
    skipped step, the actual source is the source of this step's passthrough input.
    """
    while not source.recipe:
        if source.name in recipe.inputs:
            return Source(source.name, recipe=True)
        if source.name not in recipe.skip:
            break
        step = pipeline.step(source.name)
        if step.passthrough_input is None:  # only skipped steps read its result
            break
        source = step.sources()[step.passthrough_input]
    return source


def _order(wiring: Wiring, pipeline: Pipeline) -> list[str]:
    after = {
        name: {source.name for source in sources.values() if not source.recipe} for name, sources in wiring.items()
    }
    for name, needs in after.items():
        for need in needs:
            if need not in after:
                raise ConfigError(f"Step {name} reads {need}, which is not a step.{nearest(need, pipeline.names)}")
    try:
        sorter = TopologicalSorter(after)
        sorter.prepare()
        order: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=pipeline.names.index)
            order += ready
            sorter.done(*ready)
    except CycleError as error:
        raise ConfigError(f"The steps {' -> '.join(error.args[1])} depend on one another; remove the cycle.") from None
    return order


def origins(step: str, wiring: Wiring, given: Collection[str]) -> dict[str, str]:
    """Return a mapping from each input of `step` to the recipe input that it comes from.

    Earlier steps may pass a recipe input on to `step` under the same input name, such as `images`. `given` holds the
    names of the recipe inputs that the recipe sets. The mapping has no entry for an input that another step makes, and
    no entry for an input that the recipe doesn't set.
    """
    sources = {name: _first(name, source, wiring) for name, source in wiring[step].items()}
    return {name: source.name for name, source in sources.items() if source.recipe and source.name in given}


def _first(name: str, source: Source, wiring: Wiring) -> Source:
    while not source.recipe and name in wiring[source.name]:
        source = wiring[source.name][name]
    return source


def _upstream(name: str, wiring: Wiring) -> set[str]:
    upstream: set[str] = set()
    pending = [name]
    while pending:
        for source in wiring[pending.pop()].values():
            if not source.recipe and source.name not in upstream:
                upstream.add(source.name)
                pending.append(source.name)
    return upstream


def _choose(
    order: list[str], wiring: Wiring, selection: Selection, to: str | None, skipped: Mapping[str, str]
) -> list[str]:
    chosen = [name for name in order if name not in skipped]
    if selection.only:
        return [name for name in chosen if name in selection.only]
    last = selection.last or to
    if last is not None:
        wanted = _upstream(last, wiring) | {last}
        chosen = [name for name in chosen if name in wanted]
    if selection.first is not None:
        chosen = [name for name in chosen if name == selection.first or selection.first in _upstream(name, wiring)]
    if not chosen:
        raise ConfigError("No step is left to run; check --from, --to, --only and `skip` in the recipe.")
    return chosen
