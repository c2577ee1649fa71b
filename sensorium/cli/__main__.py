"""``python -m sensorium.cli``: the command line without its script."""

from sensorium.cli import main

if __name__ == "__main__":
    main()
