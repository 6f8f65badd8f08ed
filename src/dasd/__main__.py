"""`dasd`, and `python -m dasd`, which launchers of several processes are given. Ctrl-C is heeded from the first import on."""

import sys


def main() -> None:
    try:
        from dasd.cli import main as command

        command()
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit("dasd: stopped")


if __name__ == "__main__":
    main()
