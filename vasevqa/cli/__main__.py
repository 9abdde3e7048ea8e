"""`python -m vasevqa.cli` is the `vasevqa` command."""

from vasevqa.cli import main

if __name__ == "__main__":
    main()
