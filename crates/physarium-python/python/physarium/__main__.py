"""The program: ``python -m physarium`` and the command ``physarium``."""

from __future__ import annotations

import signal
import sys

from . import _physarium


def main() -> int:
    """Runs the program with the arguments of this process. Returns its exit code."""
    # The program has handlers of its own; Python's would wait for the end of the run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _physarium.program(["physarium", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
