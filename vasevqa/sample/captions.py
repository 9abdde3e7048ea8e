"""Write captions for drawn photographs, in many different wordings.

Each caption is composed of random parts, so that a model can't memorize whole sentences.
"""

from __future__ import annotations

import random

from vasevqa.sample.catalogue import Vase

OPENINGS = (
    "",
    "",
    "a photograph of ",
    "a photo of ",
    "a museum photograph of ",
    "a picture of ",
    "an image of ",
    "a catalogue photograph of ",
)
THINGS = (
    "{s}",
    "{t} {s}",
    "ancient {s}",
    "painted {s}",
    "{t} vase",
    "vase",
    "ancient vase",
    "ancient Greek vase",
    "painted vase",
    "pot",
    "ancient pot",
    "vessel",
    "ceramic vessel",
    "{f} {t} {s}",
)
WHOLE = (
    "complete",
    "intact",
    "whole",
    "undamaged",
    "unbroken",
    "entire",
    "well-preserved",
    "perfectly preserved",
    "complete, undamaged",
    "whole and intact",
)
WHOLE_ENDINGS = (
    "",
    "",
    " seen from the front",
    ", frontal view",
    " standing upright",
    " on a plain background",
    " with its handles",
    " with both handles",
    " with its rim, body and foot",
    " in perfect condition",
    ", sharp and well lit",
    ", showing {d}",
)
# Sentences for each kind of damage. {x} is an element of THINGS with an article. {p} is the same element without an
# article.
DAMAGED: dict[str, tuple[str, ...]] = {
    "fragment": (
        "a broken fragment of {x}",
        "a fragment of {x} with irregular edges",
        "a potsherd of {x}",
        "a sherd, a broken piece of {x}",
        "broken sherds of {x}",
        "potsherds with irregular broken edges",
        "an isolated shard from {x}",
        "a few broken pieces, remains of {x}",
    ),
    "cracks": (
        "a damaged {p} with missing pieces",
        "a cracked {p} with large cracks and holes",
        "a broken {p} with missing parts",
        "an incomplete {p} with a broken rim",
        "a badly damaged, incomplete {p}",
        "{x} with cracks, chips and losses",
        "a fractured {p}, pieces are missing",
    ),
    "blur": (
        "a blurred photograph of {x}",
        "a blurry picture of {x}",
        "an unsharp image of {x}",
        "{x}, out of focus",
        "a blurred, low quality photo of {x}",
        "{x}, the photograph is blurry",
    ),
    "dark": (
        "a photograph too dark to see {x}",
        "{x} in the dark",
        "an underexposed photograph of {x}",
        "a very dark picture of {x}",
        "{x}, badly lit, almost black",
    ),
    "drawing": (
        "a line drawing of {x} on paper",
        "an ink drawing of {x}",
        "a sketch of {x}",
        "{x}, drawn with lines on paper",
        "a drawing, not a photograph, of {x}",
    ),
    "crop": (
        "a close-up of a part of {x}",
        "a close-up of {x}, cut off at the edge",
        "a detail of {x}",
        "only a part of {x} is in the picture",
        "a cropped photograph of {x}, cut off",
        "{x}, partly outside the picture",
    ),
}


def caption(vase: Vase, damage: str | None, rng: random.Random) -> str:
    """Return a random caption for a photograph of `vase`. `damage` is the kind of damage, or None for an intact vase.

    There are thousands of different captions.
    """
    decoration = str(vase.annotation["decoration"])
    words = {"s": vase.shape, "t": vase.technique, "f": vase.ware.fabric, "d": decoration}
    thing = rng.choice(THINGS).format(**words)
    if damage is None:
        state = rng.choice(WHOLE)
        ending = rng.choice(WHOLE_ENDINGS).format(**words)
        return rng.choice(OPENINGS) + with_article(f"{state} {thing}") + ending
    sentence = rng.choice(DAMAGED[damage])
    opening = rng.choice(OPENINGS) if damage in ("fragment", "cracks") else ""
    return opening + sentence.format(x=with_article(thing), p=thing)


def with_article(words: str) -> str:
    """Return the words with an indefinite article, such as 'a vase' or 'an amphora'."""
    return f"{'an' if words[0] in 'aeiouAEIOU' else 'a'} {words}"
