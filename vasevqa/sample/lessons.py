"""Give the questions and answers that the tiny Qwen2.5-VL is trained on.

The answers describe drawn vases without the names of shapes, techniques and fabrics. For example, an amphora is "a tall
vessel with two upright handles at its neck". The model learns the names later, in fine-tuning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from vasevqa.dataset.questions import load_questions
from vasevqa.sample.catalogue import Vase, invent_balanced
from vasevqa.sample.photographing import Shot

VIEWS = 3  # photographs of each vase
DRAWN = 132  # length of the drawn photographs' sides, in pixels
OUTLINES = {
    "amphora": "a tall vessel with two upright handles at its neck",
    "kylix": "a wide low vessel on a thin stem",
    "lekythos": "a slender vessel with a narrow neck",
    "hydria": "a round vessel with a neck and two level handles",
    "krater": "a wide deep vessel with handles low on its body",
    "oinochoe": "a vessel with an open mouth and no handle at its sides",
    "skyphos": "a deep vessel with level handles at its rim",
    "stamnos": "a squat vessel with level handles at its shoulder",
}
GROUNDS = {
    "black-figure": "dark figures on a light ground",
    "red-figure": "light figures on a black ground",
    "white-ground": "brown figures on a cream ground",
    "geometric": "dark rows of marks all over",
}
CLAYS = {"Attic": "orange clay", "Corinthian": "pale yellow clay", "Apulian": "dull brown clay"}
SUBJECTS = ("shape", "technique", "fabric", "caption")  # subjects of the questions


@dataclass(frozen=True)
class Seen:
    """The visible properties of a vase, as phrases."""

    outline: str
    ground: str
    clay: str

    def say(self, asked: str) -> str:
        """Return the answer to a question about `asked`, which is an element of SUBJECTS."""
        whole = f"{self.outline}, {self.ground}, {self.clay}"
        return {"shape": self.outline, "technique": self.ground, "fabric": self.clay, "caption": whole}[asked]

    @property
    def kinds(self) -> tuple[int, int, int]:
        """The indices of outline, ground and clay among all possible values."""
        return (
            list(OUTLINES.values()).index(self.outline),
            list(GROUNDS.values()).index(self.ground),
            list(CLAYS.values()).index(self.clay),
        )


def look(vase: Vase) -> Seen:
    """Return the visible properties of a vase."""
    return Seen(OUTLINES[vase.shape], GROUNDS[vase.technique], CLAYS[vase.ware.fabric])


def vases_to_learn_from(seed: int, count: int) -> list[Vase]:
    """Return `count` vases from `invent_balanced`. No sample contains these vases."""
    vases = invent_balanced(random.Random(f"tiny-qwen-{seed}"))
    return [next(vases) for _ in range(count)]


def shots_of(vases: list[Vase], seed: int) -> list[tuple[Vase, Shot]]:
    """Return `VIEWS` photographs without damage for each vase. A photograph is a pair of a vase and a Shot."""
    rng = random.Random(f"tiny-qwen-shots-{seed}")
    return [(vase, Shot(rng.uniform(0, 360), None, rng.getrandbits(32), DRAWN)) for vase in vases for _ in range(VIEWS)]


def questions() -> dict[str, tuple[str, ...]]:
    """Return build-dataset's questions for each of SUBJECTS."""
    ask = load_questions(None).ask
    return {subject: ask[subject] for subject in SUBJECTS}
