"""What starts as `python -m drupe`: the program, which the distribution drupe-commands brings."""

import sys

PROGRAM = "drupe-commands"

try:
    from importlib import metadata

    try:
        (program,) = metadata.distribution(PROGRAM).entry_points.select(group="console_scripts", name="drupe")
    except (metadata.PackageNotFoundError, ValueError):
        sys.exit(f"error: the program is not installed\n  try: pip install {PROGRAM}")
    program.load()()
except KeyboardInterrupt:
    print("error: stopped", file=sys.stderr)
    sys.exit(130)
