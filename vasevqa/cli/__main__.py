"""`python -m vasevqa.cli` runs the `vasevqa` command."""

from vasevqa.cli import main

if __name__ == "__main__":
    main()
