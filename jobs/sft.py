"""The command that the sft image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.sft import STAGE

if __name__ == "__main__":
    main(STAGE)
