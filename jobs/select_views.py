"""The command that the select-views image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.select_views import STAGE

if __name__ == "__main__":
    main(STAGE)
