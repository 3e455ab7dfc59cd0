"""Ends a process group once whoever started it is gone, even by kill -9.

``srgpt.process`` runs this file as a plain script beside each command, with standard input connected to a
pipe that only the starter writes to: a byte means that all is well, end-of-file that the starter died. It
imports nothing of the package, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def main() -> None:
    """Wait for the starter's word; without it end the group. Arguments: the group, the seconds of grace."""
    group, grace = int(sys.argv[1]), float(sys.argv[2])
    if sys.stdin.buffer.read(1):
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
