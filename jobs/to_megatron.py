"""The command that the to-megatron image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.to_megatron import STAGE

if __name__ == "__main__":
    main(STAGE)
