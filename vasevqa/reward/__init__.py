"""Compute a score for how correct an answer about a vase is."""

# The modules that decide a reward. Stages that use the reward include them in their `sources`.
SOURCES = tuple(
    f"vasevqa.reward.{name}"
    for name in (
        "score",
        "answers",
        "attribution",
        "claims",
        "dates",
        "decoration",
        "named",
        "phrases",
        "places",
        "truths",
        "vocabulary",
        "words",
    )
)
