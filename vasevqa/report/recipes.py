"""Read the settings that a report needs from a run's recipe. Settings that can't be read are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vasevqa.dataset.questions import Questions, load_questions
from vasevqa.dataset.reading import Reading
from vasevqa.errors import VaseError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.inspection import reading_of
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.reward import vocabulary


@dataclass(frozen=True)
class Told:
    """The settings of a recipe that a report needs.

    `reading` says how file names and tables are read. `table` is the file or folder with the annotations, and
    `vocabulary` is the folder of the user's vocabulary. Each of the two is None if the recipe doesn't name one that can
    be used. `questions` are the questions of the dataset.
    """

    reading: Reading = field(default_factory=Reading)
    table: Path | None = None
    vocabulary: Path | None = None
    questions: Questions = field(default_factory=lambda: load_questions(None))

    @classmethod
    def by(cls, recipe: Path) -> Told:
        """Return the settings of the recipe in a file; the defaults if the recipe can't be read."""
        try:
            loaded = load_recipe(recipe, PIPELINE, here=False)
        except (VaseError, OSError):
            return cls()
        given = {
            name: Path(path)
            for name, path in loaded.inputs.items()
            if name in ("annotations", "vocabulary", "questions")
        }
        table, words, questions = map(given.get, ("annotations", "vocabulary", "questions"))
        return cls(
            reading_of(loaded),
            table if table is not None and table.exists() else None,
            words if words is not None and _valid(vocabulary.check, words) else None,
            load_questions(questions if questions is not None and _valid(load_questions, questions) else None),
        )


def _valid(check: Callable[[Path], object], path: Path) -> bool:
    try:
        check(path)
    except (VaseError, OSError):
        return False
    return True
