"""The command that the merge image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.merge import STAGE

if __name__ == "__main__":
    main(STAGE)
