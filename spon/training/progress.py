# SPDX-License-Identifier: MIT
"""Lines that tell how far long work is, for people who watch and for logs of batch jobs."""

import sys
import time
from typing import TextIO


class Live:
    """Takes lines: on a terminal each replaces the last one, elsewhere one is printed every some seconds.

    The last line of each kind, which is what stands before its colon, is always printed and stays.

    Args:
        stream: where to. every: seconds between two lines of one kind where there is no terminal.
    """

    def __init__(self, stream: TextIO = sys.stderr, every: float = 10.0):
        self._stream, self._every, self._terminal = stream, every, stream.isatty()
        self._kind, self._waiting, self._printed = "", "", 0.0

    def __call__(self, line: str) -> None:
        kind = line.split(":")[0]
        if kind != self._kind:
            self.close()
            self._kind, self._printed = kind, time.monotonic()
        self._waiting = line
        if self._terminal:
            # Back to the start of the line, and away with what stands there.
            print(f"\r\x1b[2K{line}", end="", file=self._stream, flush=True)
        elif time.monotonic() - self._printed >= self._every:
            self.close()
            self._printed = time.monotonic()

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Print the last line if it is not there yet, and end it."""
        if self._waiting:
            print("" if self._terminal else self._waiting, file=self._stream, flush=True)
        self._waiting = ""
