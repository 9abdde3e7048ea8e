"""Show which classes the last model of the evaluation confuses, and show the worst answers of this model."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vasevqa.evaluation.figures import Evaluation


class _Figures(BaseModel):
    """The share of right answers to the questions whose true answer is one class."""

    exact: float
    interval: tuple[float, float] | None = None
    vases: int = 0


class WorstAnswer(BaseModel):
    """An answer with a low reward."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vase: str = ""
    attribute: str = ""
    truth: str = ""
    answer: str = ""
    reward: float = 0.0


class _Mistakes(BaseModel):
    """The part of a model's mistakes in evaluation.json that the report shows."""

    confusion: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    kinds: dict[str, dict[str, int]] = Field(default_factory=dict)
    classes: dict[str, dict[str, _Figures]] = Field(default_factory=dict)
    worst: list[WorstAnswer] = Field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """The answers to the rows whose true class is `name`.

    `right` is the share of right answers as text, and `counts` holds the number of rows for each answered class.
    """

    name: str
    right: str
    vases: str
    counts: tuple[tuple[int, bool], ...]  # number of answers, and whether this answer is right


@dataclass(frozen=True)
class Confusion:
    """A table of true classes against answered classes for one attribute.

    `rows` is the number of rows in the table. `left_out` is the number of the attribute's remaining rows. The true
    answer of a remaining row names no known class, or it names several classes.
    """

    attribute: str
    rows: int
    left_out: int
    said: tuple[str, ...]
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class ModelMistakes:
    """The mistakes of a model."""

    model: str
    confusions: tuple[Confusion, ...]
    worst: tuple[WorstAnswer, ...]


def mistakes(evaluation: Evaluation) -> ModelMistakes | None:
    """Return the mistakes of the evaluation's last model; None if there is nothing to show.

    If the evaluation has no valid list of this model's mistakes, the model before it is used.
    """
    for model, measured in reversed(evaluation.get("models", {}).items()):
        try:
            found = _Mistakes.model_validate(measured.get("mistakes"))
        except ValidationError:
            continue
        confusions = tuple(
            _confusion(
                attribute, counts, found.classes.get(attribute, {}), sum(found.kinds.get(attribute, {}).values())
            )
            for attribute, counts in found.confusion.items()
        )
        return ModelMistakes(model, confusions, tuple(found.worst)) if confusions or found.worst else None
    return None


def _confusion(
    attribute: str, counts: dict[str, dict[str, int]], figures: dict[str, _Figures], every: int
) -> Confusion:
    others = sorted({said for by_said in counts.values() for said in by_said} - set(counts))
    said = (*counts, *others)
    truths = []
    for true, by_said in counts.items():
        known = figures.get(true)
        right = "" if known is None else f"{known.exact:.2f}"
        if known is not None and known.interval is not None:
            right += f" [{known.interval[0]:.2f}, {known.interval[1]:.2f}]"
        cells = tuple((by_said.get(name, 0), name == true) for name in said)
        truths.append(Truth(true, right, "" if known is None else str(known.vases), cells))
    rows = sum(sum(by_said.values()) for by_said in counts.values())
    return Confusion(attribute, rows, max(0, every - rows), said, tuple(truths))
