"""`python -m scripts.demo_learned VOLUME`: check that the models of the demo's newest run have learned."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(volume: Path) -> None:
    """Raise AssertionError if the models of the newest run have not learned.

    SFT must halve the loss, and get higher rewards in evaluation than the base model. The rewards of GRPO's answers
    must not all be equal. Both adapters must have changed.
    """
    steps = (
        max((run for run in (volume / "runs").iterdir() if (run / "steps/evaluate").exists()), key=lambda run: run.name)
        / "steps"
    )
    sft, grpo = (json.loads((steps / name / "training_summary.json").read_text()) for name in ("sft", "grpo"))
    assert sft["last_loss"] < sft["first_loss"] / 2, sft
    assert sft["adapter_norm"] > 0.1, sft
    assert grpo["reward_spread"] > 0, grpo
    assert grpo["adapter_norm"] > 0, grpo
    models = json.loads((steps / "evaluate/evaluation.json").read_text())["models"]
    rewards = {name: model["rewards"]["value"] for name, model in models.items()}
    assert rewards["sft"] > rewards["base"], rewards
    print(f"the demo learned: loss {sft['first_loss']:.1f} -> {sft['last_loss']:.1f}, held-out rewards {rewards}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
