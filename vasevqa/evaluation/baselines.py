"""Compute baselines that answer without the picture.

A model that uses the picture should score higher than these baselines.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from vasevqa.dataset.rows import Row
from vasevqa.reward.score import score
from vasevqa.text import IMAGE_TAG

MAJORITY, CONSTANT = "majority", "constant"
ABOUT = {
    MAJORITY: "the training rows' most common answer to each attribute",
    CONSTANT: "the one training answer to each attribute that earns the greatest mean reward on the training rows",
}
CANDIDATES = 50  # number of an attribute's most common answers that are tried as a constant
COMPARED = 400  # maximum number of an attribute's training rows on which a constant is scored


def constants(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Return a mapping from each baseline (MAJORITY and CONSTANT, see ABOUT) to its answer for each attribute.

    `rows` are the training rows. Rows without an attribute are not used. Captions are not used, because different vases
    have no common caption.
    """
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.get("attribute") and row["attribute"] != "caption" and row["messages"][-1]["role"] == "assistant":
            answers[row["attribute"]].append(row["messages"][-1]["content"])
    majority, constant = {}, {}
    for attribute, given in sorted(answers.items()):
        common = [answer for answer, _ in sorted(Counter(given).items(), key=lambda item: (-item[1], item[0]))]
        majority[attribute] = common[0]
        tried = Counter(given[:: max(1, len(given) // COMPARED)])
        constant[attribute] = max(common[:CANDIDATES], key=lambda answer: _mean_reward(answer, tried, attribute))
    return {MAJORITY: majority, CONSTANT: constant}


def _mean_reward(answer: str, truths: Mapping[str, int], attribute: str) -> float:
    total = sum(truths.values())
    return sum(score(answer, truth, attribute).value * count for truth, count in truths.items()) / total


def without_picture(row: Row) -> Row:
    """Return the row without its pictures and without the image tags."""
    messages = [{**turn, "content": turn["content"].replace(IMAGE_TAG, "").strip()} for turn in row["messages"]]
    return {**row, "messages": messages, "images": []}  # type: ignore[typeddict-item]
