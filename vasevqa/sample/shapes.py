"""Shapes of vases as profiles of surfaces of revolution, and what is known of each invented vase."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """A profile from foot (v=0) to rim (v=1): (v, radius) with the largest radius 1; `aspect` is height over greatest width."""

    profile: tuple[tuple[float, float], ...]
    aspect: float
    handles: str  # side, loop, none: how they are drawn
    handle_span: tuple[float, float]  # v of the lower and the upper end

    def radius(self, v: np.ndarray) -> np.ndarray:
        """The radius at heights `v`, smoothed."""
        grid = np.linspace(0, 1, 201)
        values = np.interp(grid, *np.array(self.profile).T)
        kernel = np.hanning(13)
        padded = np.pad(values, 6, mode="edge")
        return np.asarray(np.interp(v, grid, np.convolve(padded, kernel / kernel.sum(), "valid")))


SHAPES = {
    "amphora": Shape(((0, 0.42), (0.04, 0.42), (0.07, 0.22), (0.3, 0.75), (0.55, 1), (0.7, 0.85), (0.78, 0.4), (0.95, 0.4), (0.97, 0.5), (1, 0.5)), 1.45, "side", (0.62, 0.95)),
    "kylix": Shape(((0, 0.45), (0.06, 0.42), (0.12, 0.1), (0.42, 0.12), (0.5, 0.5), (0.7, 0.85), (1, 1)), 0.55, "loop", (0.7, 0.9)),
    "lekythos": Shape(((0, 0.6), (0.05, 0.6), (0.07, 0.35), (0.12, 0.8), (0.6, 1), (0.68, 0.7), (0.72, 0.22), (0.86, 0.22), (0.9, 0.5), (1, 0.6)), 2.5, "one", (0.62, 0.86)),
    "hydria": Shape(((0, 0.42), (0.04, 0.42), (0.08, 0.25), (0.35, 0.8), (0.62, 1), (0.72, 0.85), (0.77, 0.32), (0.93, 0.34), (0.97, 0.52), (1, 0.52)), 1.2, "loop", (0.5, 0.62)),
    "krater": Shape(((0, 0.5), (0.07, 0.5), (0.11, 0.25), (0.2, 0.6), (0.4, 0.85), (0.75, 0.88), (0.95, 0.98), (1, 1)), 1.0, "loop", (0.3, 0.45)),
    "oinochoe": Shape(((0, 0.5), (0.05, 0.5), (0.3, 0.95), (0.45, 1), (0.65, 0.7), (0.75, 0.38), (0.9, 0.42), (1, 0.55)), 1.5, "one", (0.5, 0.97)),
    "skyphos": Shape(((0, 0.6), (0.06, 0.58), (0.3, 0.85), (0.7, 0.98), (1, 1)), 0.8, "loop", (0.78, 0.92)),
    "stamnos": Shape(((0, 0.45), (0.05, 0.42), (0.35, 0.75), (0.65, 1), (0.8, 0.85), (0.86, 0.5), (0.96, 0.5), (1, 0.6)), 1.1, "loop", (0.55, 0.68)),
}

# technique -> (fabric, earliest, latest year BCE) as is usual for it
TECHNIQUES = {"black-figure": ("Attic", 600, 480), "red-figure": ("Attic", 525, 320), "geometric": ("Corinthian", 750, 690), "white-ground": ("Attic", 500, 400)}
PROVENANCES = ("Vulci", "Athens, Kerameikos", "Nola", "Gela", "Cerveteri", "Kameiros", "Corinth", "Tarquinia")
PAINTERS = {
    "black-figure": ("Exekias", "the Amasis Painter", "the Antimenes Painter", "Lydos"),
    "red-figure": ("Euphronios", "the Berlin Painter", "the Kleophrades Painter", "the Niobid Painter"),
    "geometric": ("the Dipylon Workshop", "the Hirschfeld Workshop"),
    "white-ground": ("the Achilles Painter", "the Bowdoin Painter"),
}
SUBJECTS = {"warrior": "a warrior with a spear", "horse": "a horse", "draped": "a draped figure", "dancers": "two dancing figures", "palmette": "a palmette"}


@dataclass(frozen=True)
class Vase:
    """One invented vase: what it looks like and what a catalogue says of it."""

    id: str
    shape: str
    technique: str
    subject: str
    border: str
    begin: int  # year BCE
    end: int
    provenance: str
    painter: str
    seed: int

    @property
    def annotation(self) -> dict[str, object]:
        """The catalogue entry, every field consistent with what is drawn."""
        fabric = TECHNIQUES[self.technique][0]
        decoration = f"{SUBJECTS[self.subject]}, framed by a {self.border} band" if self.technique != "geometric" else f"bands of {self.border} and zigzags"
        return {
            "vase_id": self.id,
            "fabric": fabric,
            "technique": self.technique,
            "shape": self.shape,
            "provenance": self.provenance,
            "date": f"c. {self.begin}-{self.end} BCE",
            "date_range": [-self.begin, -self.end],
            "attribution": self.painter,
            "decoration": decoration,
            "caption": f"{'An' if fabric[0] in 'AEIOU' else 'A'} {fabric} {self.technique} {self.shape}, c. {self.begin}-{self.end} BCE, attributed to {self.painter}, showing {decoration}.",
        }


def invent(rng: random.Random) -> Vase:
    """A vase by the random numbers of `rng`."""
    technique = rng.choice(list(TECHNIQUES))
    _, earliest, latest = TECHNIQUES[technique]
    begin = rng.randrange(latest + 20, earliest + 1, 5)
    return Vase(
        id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        shape=rng.choice(list(SHAPES)),
        technique=technique,
        subject="palmette" if technique == "geometric" else rng.choice([name for name in SUBJECTS if name != "palmette"]),
        border=rng.choice(("meander", "tongue")) if technique != "geometric" else "meander",
        begin=begin,
        end=max(latest, begin - rng.choice((20, 25, 40, 50))),
        provenance=rng.choice(PROVENANCES),
        painter=rng.choice(PAINTERS[technique]),
        seed=rng.getrandbits(32),
    )
