"""The messages between this machine and the pod of a review. Each side validates the messages of the other side."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from vasevqa.errors import ClusterError, ConfigError
from vasevqa.review.choosing import Scores
from vasevqa.text import first_line

LABELS = "labels"  # the folder of the volume that holds the folders of labels
MOST_PICTURE = 16 << 20  # maximum size of a JPEG in bytes


def _inner(name: str) -> str:
    """Return `name` if it is a relative path that stays inside its folder. Otherwise raise ValueError."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name:
        raise ValueError("the path leads elsewhere")
    return name


def _shown(text: str) -> str:
    """Return a text with a space in place of each character that could control a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


Inner = Annotated[str, Field(max_length=4096), AfterValidator(_inner)]
Said = Annotated[str, AfterValidator(_shown)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Stamp = Annotated[str, Field(pattern=r"^[0-9]{1,20}:-?[0-9]{1,20}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


_WRONG = {
    "run": "{run} is not the name of a run; with -n, give the name of a run of the cluster.",
    "into": "The name of {into} can't be used on the volume; give --into a folder whose name doesn't begin with a dot.",
    "annotations": "With -n, the table is a file on the volume; give --annotations its path relative to the volume.",
}


class Asked(_Message):
    """A request for a review: the run, the question, the options about vases, and the name of the folder of labels."""

    run: str = Field(min_length=1, max_length=200, pattern=r"^[^/\x00]+$")
    question: str
    into: str = Field(max_length=100, pattern=r"^[^./\x00][^/\x00]*$")
    name_pattern: list[str] = []
    vase_column: str | None = None
    annotations: Inner | None = None

    @classmethod
    def of(cls, run: str, question: str, into: Path, **more: object) -> Asked:
        """Return a request. The folder of labels on the volume gets the name of this machine's folder `into`.

        Raise ConfigError if the name of the run or of the folder, or the path of the table, is not valid on the volume.
        """
        try:
            return cls.model_validate({"run": run, "question": question, "into": into.resolve().name, **more})
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            raise ConfigError(_WRONG.get(field, f"{field} is wrong.").format(run=run, into=into)) from None

    @property
    def folder(self) -> str:
        """The folder of the labels, relative to the volume's root."""
        return f"{LABELS}/{self.into}"


class Threshold(_Message):
    """The threshold of the step that scored the photographs.

    `step` is the step's name. `uniform` is the share of the draws in which every remaining photograph has the same
    chance.
    """

    step: str
    threshold: float
    uniform: float = Field(gt=0, le=1)

    def scores(self, values: dict[str, float]) -> Scores:
        """Return the scores in `values` together with the step and its threshold."""
        return Scores(values, self.threshold, self.step, self.uniform)


class Head(_Message):
    """The first answer: the run's name, the folder and number of its photographs, and remarks for the user (`said`)."""

    run: str
    folder: Inner
    said: list[Said]
    threshold: Threshold | None
    photographs: int = Field(gt=0)


class Listed(_Message):
    """A photograph on the volume. The fields are those of photographs.Photograph."""

    name: Inner
    vase: str = Field(max_length=4096)
    place: Inner
    stamp: Stamp


class Photographs(_Message):
    """A part of the list of photographs."""

    photographs: list[Listed]


class Values(_Message):
    """The scores of a part of the photographs, by name."""

    scores: dict[str, FiniteFloat]


class Groups(_Message):
    """The groups of look-alikes to which some of the photographs belong.

    `groups` maps a photograph's name to two numbers: its group, and its rank by distance to the group's centre. The
    lowest rank is the nearest.
    """

    groups: dict[str, tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]]


class Known(_Message):
    """The digest and the stamp of a photograph; both are None if the photograph is gone."""

    name: Inner
    stamp: Stamp | None
    digest: Digest | None


class Picture(_Message):
    """The header before the bytes of a picture.

    `digest` is the digest of the photograph's file. `check` is the digest of the picture's bytes.
    """

    name: Inner
    stamp: Stamp
    digest: Digest
    check: Digest


class Given(_Message):
    """The pod's answer when it has received labels: how many of them were new, and which problems occurred.

    `low` and `high` count the photographs that are now in 0/ and in 1/.
    """

    new: int = Field(ge=0)
    low: int = Field(ge=0)
    high: int = Field(ge=0)
    problems: list[Said] = []


M = TypeVar("M", bound=_Message)


def parsed(model: type[M], answer: object) -> M:
    """Return the pod's `answer` as a message of the type `model`. Raise ClusterError if the answer is invalid."""
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ClusterError(
            f"The pod sent an invalid message of the type {model.__name__} ({where}: {first_line(first['msg'])}); check"
            " that the image has this version of vasevqa."
        ) from None
