"""The click command of the evaluate image."""

from vasevqa.runtime.command import main
from vasevqa.stages.evaluate import STAGE

if __name__ == "__main__":
    main(STAGE)
