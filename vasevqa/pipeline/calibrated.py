"""The result of `vasevqa review --calibrate`, as a file in the run's folder. The report shows it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from vasevqa import files

SCHEMA = 1


class Share(BaseModel):
    """An estimated share, with its 95% interval if enough vases have labels."""

    value: float
    low: float | None
    high: float | None

    def said(self) -> str:
        """Return the share as text, with its interval if there is one."""
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Candidate(BaseModel):
    """What a candidate threshold would do.

    `labels` counts the labelled photographs that the threshold accepts, and `vases` counts their vases. `precision` is
    estimated from these labels. `testable` is false if these labels are too few: they could not show the required
    precision even if all of them were good. `lost_photographs` and `lost_vases` count the photographs and vases that
    the threshold removes, with or without labels.
    """

    threshold: float
    precision: Share | None
    recall: Share | None
    labels: int
    vases: int
    testable: bool
    lost_photographs: int
    lost_vases: int


class Calibration(BaseModel):
    """What labels show about a step's threshold: the candidates, and the threshold that was chosen from the labels.

    `chosen` is None if there is no threshold for which the labels show the precision `aim`. `photographs` and `vases`
    count the photographs that the step scored, and their vases. `recipe` is the setting of the chosen threshold for the
    recipe.
    """

    question: str
    step: str
    aim: float
    present: float
    photographs: int
    vases: int
    labels: int
    labelled_vases: int
    unsure: int
    undrawn: int
    candidates: list[Candidate]
    chosen: float | None
    says: str
    recipe: str | None

    def write(self, path: Path) -> None:
        """Write the file, for the report of the run. Raise OSError if it can't be written."""
        files.write_json(path, {"schema": SCHEMA, **self.model_dump(mode="json")})

    @classmethod
    def read(cls, path: Path) -> Calibration | None:
        """Return the content of a file; None if the file is missing or invalid."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
