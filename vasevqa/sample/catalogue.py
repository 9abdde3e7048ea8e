"""Invent vases.

The look of a vase and its entry in a museum's catalogue are derived from the same fields.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Ware:
    """A tradition of pottery, such as Attic black-figure, and the properties that its vases can have."""

    fabric: str
    technique: str
    earliest: int
    latest: int
    clay: Color
    shapes: tuple[str, ...]
    subjects: tuple[str, ...]
    borders: tuple[str, ...]
    provenances: tuple[str, ...]
    painters: tuple[str, ...]


_ALL = ("amphora", "kylix", "lekythos", "hydria", "krater", "oinochoe", "skyphos", "stamnos")
_FIGURES = ("warrior", "rider", "horse", "draped", "dancers", "lion")
_ETRURIA = ("Vulci", "Cerveteri", "Tarquinia", "Nola", "Gela", "Kameiros", "Athens, Kerameikos")
_APULIA = ("Ruvo", "Taranto", "Canosa", "Ceglie del Campo")
WARES = (
    Ware(
        "Attic",
        "black-figure",
        600,
        480,
        (196, 106, 52),
        _ALL,
        _FIGURES,
        ("meander", "tongue", "ivy"),
        _ETRURIA,
        ("Exekias", "the Amasis Painter", "the Antimenes Painter", "Lydos"),
    ),
    Ware(
        "Corinthian",
        "black-figure",
        620,
        550,
        (216, 186, 138),
        ("amphora", "hydria", "krater", "oinochoe", "skyphos", "kylix"),
        ("lion", "horse", "rider", "warrior"),
        ("tongue", "lozenge"),
        ("Corinth", "Vulci", "Kameiros", "Syracuse"),
        ("the Cavalcade Painter", "the Three Maidens Painter", "the Dodwell Painter"),
    ),
    Ware(
        "Attic",
        "red-figure",
        525,
        400,
        (200, 108, 54),
        _ALL,
        _FIGURES,
        ("meander", "tongue", "ivy"),
        _ETRURIA,
        ("Euphronios", "the Berlin Painter", "the Kleophrades Painter", "the Niobid Painter"),
    ),
    Ware(
        "Apulian",
        "red-figure",
        430,
        300,
        (190, 122, 78),
        ("amphora", "hydria", "krater", "oinochoe", "skyphos"),
        ("draped", "warrior", "horse", "rider"),
        ("meander", "ivy"),
        _APULIA,
        ("the Darius Painter", "the Ilioupersis Painter", "the Baltimore Painter"),
    ),
    Ware(
        "Attic",
        "white-ground",
        500,
        400,
        (200, 112, 60),
        ("lekythos", "kylix", "oinochoe", "krater"),
        ("draped", "warrior", "dancers"),
        ("meander", "lozenge"),
        ("Athens, Kerameikos", "Eretria", "Gela"),
        ("the Achilles Painter", "the Bowdoin Painter", "the Thanatos Painter"),
    ),
    Ware(
        "Attic",
        "geometric",
        770,
        700,
        (198, 132, 78),
        ("amphora", "krater", "oinochoe", "skyphos", "hydria"),
        ("birds", "horse"),
        ("meander", "lozenge"),
        ("Athens, Kerameikos", "Athens, Dipylon cemetery", "Eleusis"),
        ("the Dipylon Workshop", "the Hirschfeld Workshop"),
    ),
)
SHARES = (1, 3, 1, 3, 1, 1)  # number of vases of each ware in ten balanced vases
SUBJECTS = {
    "warrior": "a warrior with spear and shield",
    "rider": "a horseman",
    "horse": "a horse",
    "draped": "a draped figure leaning on a staff",
    "dancers": "two dancing figures",
    "lion": "a lion",
    "birds": "a file of water birds",
}


@dataclass(frozen=True)
class Vase:
    """One invented vase.

    `begin` and `end` are years BCE. `seed` is the seed for random details, such as the shade of the clay.
    """

    id: str
    ware: Ware
    shape: str
    subject: str
    border: str
    begin: int
    end: int
    provenance: str
    painter: str
    seed: int

    @property
    def technique(self) -> str:
        """The technique: black-figure, red-figure, white-ground or geometric."""
        return self.ware.technique

    @property
    def annotation(self) -> dict[str, object]:
        """The catalogue entry.

        `date_start` and `date_end` are years. Years BCE are negative.
        """
        fabric, date = self.ware.fabric, f"c. {self.begin}-{self.end} BCE"
        decoration = f"{SUBJECTS[self.subject]}, framed by {self.border} bands"
        article = "An" if fabric[0] in "AEIOU" else "A"
        return {
            "vase_id": self.id,
            "fabric": fabric,
            "technique": self.technique,
            "shape": self.shape,
            "provenance": self.provenance,
            "date": date,
            "date_start": -self.begin,
            "date_end": -self.end,
            "attribution": self.painter,
            "decoration": decoration,
            "caption": (
                f"{article} {fabric} {self.technique} {self.shape} from {self.provenance}, {date}, attributed to"
                f" {self.painter}, showing {decoration}."
            ),
        }


def invent(rng: random.Random) -> Vase:
    """Return a vase with random properties from `rng`.

    Every technique has the same probability. The other properties are chosen at random from a ware with this technique.
    """
    technique = rng.choice(sorted({ware.technique for ware in WARES}))
    return invent_one_of(rng.choice([ware for ware in WARES if ware.technique == technique]), rng)


def invent_balanced(rng: random.Random) -> Iterator[Vase]:
    """Yield random vases without end, with a limited share of each fabric and of each technique.

    In each group of ten vases, no fabric and no technique occurs more than four times. A model that always answers with
    the same fabric or the same technique is therefore wrong more often than right.
    """
    ten = [ware for ware, share in zip(WARES, SHARES, strict=True) for _ in range(share)]
    while True:
        for ware in rng.sample(ten, len(ten)):
            yield invent_one_of(ware, rng)


def invent_one_of(ware: Ware, rng: random.Random) -> Vase:
    """Return a vase of the ware `ware` with random properties from `rng`."""
    begin = rng.randrange(ware.latest + 20, ware.earliest + 1, 5)
    return Vase(
        id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        ware=ware,
        shape=rng.choice(ware.shapes),
        subject=rng.choice(ware.subjects),
        border=rng.choice(ware.borders),
        begin=begin,
        end=max(ware.latest, begin - rng.choice((20, 25, 40, 50))),
        provenance=rng.choice(ware.provenances),
        painter=rng.choice(ware.painters),
        seed=rng.getrandbits(32),
    )
