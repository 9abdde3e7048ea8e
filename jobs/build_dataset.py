"""The click command of the build-dataset image."""

from vasevqa.runtime.command import main
from vasevqa.stages.build_dataset import STAGE

if __name__ == "__main__":
    main(STAGE)
