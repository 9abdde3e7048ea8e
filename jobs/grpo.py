"""The command that the grpo image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.grpo import STAGE

if __name__ == "__main__":
    main(STAGE)
