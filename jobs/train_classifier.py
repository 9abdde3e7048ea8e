"""The click command of the train-classifier image."""

from vasevqa.runtime.command import main
from vasevqa.stages.train_classifier import STAGE

if __name__ == "__main__":
    main(STAGE)
