# SPDX-License-Identifier: MIT
"""Progress of long computations: a line that is replaced on a terminal, few lines in the log of a batch job."""

import sys
import time
from typing import Any, TextIO


class Live:
    """Prints lines: on a terminal with rich each replaces the last one, elsewhere one is printed every few seconds.

    The last line of each kind, the text before its colon, is always printed and kept.

        with Live() as live:
            operators.train(network, f, u, log=live)

    Args:
        stream: to print to; None for stderr.
        every: seconds between two lines of one kind without a terminal or rich.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0):
        self._stream, self._every = sys.stderr if stream is None else stream, every
        self._console = _console(self._stream)
        self._display: Any = None
        self._kind, self._waiting, self._printed = "", "", 0.0

    def __call__(self, line: str) -> None:
        kind = line.split(":")[0]
        if kind != self._kind:
            self.close()
            self._kind, self._printed = kind, time.monotonic()
        self._waiting = line
        if self._console is not None:
            self._show(line)
        elif time.monotonic() - self._printed >= self._every:
            self.close()
            self._printed = time.monotonic()

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Print the last line unless it is printed already, and end it."""
        if self._display is not None:
            self._display.stop()
            self._display = None
        elif self._waiting:
            print(self._waiting, file=self._stream, flush=True)
        self._waiting = ""

    def _show(self, line: str) -> None:
        """Replace the line on the terminal."""
        import rich.live
        import rich.text

        if self._display is None:
            # Other output is printed above the line, unless it is redirected to a file.
            printed = sys.stdout.isatty()
            self._display = rich.live.Live(console=self._console, auto_refresh=False, redirect_stdout=printed)
            self._display.start()
        self._display.update(rich.text.Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


def _console(stream: TextIO) -> Any:
    """A console of rich on a terminal, else None."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)
