"""The click command of the grpo image."""

from vasevqa.runtime.command import main
from vasevqa.stages.grpo import STAGE

if __name__ == "__main__":
    main(STAGE)
