"""The command that the train-classifier image runs."""

from vasevqa.runtime.command import main
from vasevqa.stages.train_classifier import STAGE

if __name__ == "__main__":
    main(STAGE)
