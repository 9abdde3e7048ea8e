"""The command that the evaluate image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.evaluate import STAGE

if __name__ == "__main__":
    main(STAGE)
