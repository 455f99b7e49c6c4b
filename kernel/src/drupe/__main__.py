"""What starts as `drupe` or `python -m drupe`: so little that Ctrl-C is answered while the rest is still imported."""

import sys


def main() -> None:
    """Run the program."""
    try:
        from drupe import cli

        cli.main()
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
