"""`python -m vasevqa.transfer ROOT` runs the far end of a transfer in a pod."""

import sys

from vasevqa.transfer.far_end import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
