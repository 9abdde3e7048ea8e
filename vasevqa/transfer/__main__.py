"""Serve a transfer of files from inside a pod: `python -m vasevqa.transfer ROOT`."""

import sys

from vasevqa.transfer.far_end import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
