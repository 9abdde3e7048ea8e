"""The command that the build-dataset image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.build_dataset import STAGE

if __name__ == "__main__":
    main(STAGE)
