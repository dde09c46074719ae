# SPDX-License-Identifier: MIT
"""A progress bar on a terminal."""

import sys


class Bar:
    """A bar on stderr if that is a terminal and rich is installed; nothing otherwise, as under mpirun.

    Args:
        title: text left of the bar.
        total: value of `update` at the end.
        wanted: False for no bar in any case.

    Attributes:
        shown: whether there is a bar.
    """

    def __init__(self, title: str, total: float, wanted: bool = True):
        self._bar, self._task = None, None
        if not wanted:
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        except ImportError:
            return
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            more = (TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
            # Other output is printed above the bar, unless it is redirected to a file.
            self._bar = Progress(*columns, *more, console=console, redirect_stdout=sys.stdout.isatty())
            self._task = self._bar.add_task(title, total=total, note="")

    @property
    def shown(self) -> bool:
        return self._bar is not None

    def __enter__(self) -> "Bar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, completed: float, note: str = "") -> None:
        """Move the bar to `completed` of the total, with a note right of it."""
        if self._bar is not None:
            assert self._task is not None
            self._bar.update(self._task, completed=completed, note=note)
