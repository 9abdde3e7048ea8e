"""The click command of the sft image."""

from vasevqa.pipeline.entry import main
from vasevqa.stages.sft import STAGE

if __name__ == "__main__":
    main(STAGE)
