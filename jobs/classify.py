"""The click command of the classify image."""

from vasevqa.runtime.command import main
from vasevqa.stages.classify import STAGE

if __name__ == "__main__":
    main(STAGE)
