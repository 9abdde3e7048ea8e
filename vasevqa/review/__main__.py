"""Run the part of a review that belongs in a pod: `python -m vasevqa.review ROOT`."""

import sys
from pathlib import Path

from vasevqa.review.far_end import ReviewEnd
from vasevqa.transfer.far_end import served

if __name__ == "__main__":
    sys.exit(served(ReviewEnd(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)))
