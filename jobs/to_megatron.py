"""The click command of the to-megatron image."""

from vasevqa.runtime.command import main
from vasevqa.stages.to_megatron import STAGE

if __name__ == "__main__":
    main(STAGE)
