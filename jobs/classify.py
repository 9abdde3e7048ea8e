"""The command that the classify image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.classify import STAGE

if __name__ == "__main__":
    main(STAGE)
