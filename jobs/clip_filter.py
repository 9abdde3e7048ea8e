"""The command that the clip-filter image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.clip_filter import STAGE

if __name__ == "__main__":
    main(STAGE)
