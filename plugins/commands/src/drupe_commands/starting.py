"""What starts as `drupe`: so little that Ctrl-C is answered while the rest is still imported."""

import gc
import sys


def main() -> None:
    """Run the program."""
    # Imports make many objects and no garbage; looking for cycles among them takes a tenth of a conversion's time.
    gc.set_threshold(500_000)
    try:
        from drupe_commands import program

        program.main()
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        sys.exit(130)
