# SPDX-License-Identifier: MIT
"""Functions that PETSc calls: their errors, and Ctrl-C, come out as what they are."""

import signal
import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any

from petsc4py import PETSc


class Callbacks:
    """Keeps exceptions from crossing PETSc, which would be left in mid-solve and raise an error of its own.

    The first exception of a guarded function is kept, and ends the solve. Ctrl-C raises KeyboardInterrupt in guarded
    functions only; if it comes while PETSc itself is at work, that is when PETSc calls the next of them, or comes back.

    Args:
        abandon: called in place of a guarded function, with its arguments, from the first exception on; it returns what
            makes PETSc stop.

    Attributes:
        error: what was kept in the last `run`, or None.
    """

    def __init__(self, abandon: Callable[..., Any]):
        self.error: BaseException | None = None
        self._abandon, self._inside, self._interrupted = abandon, False, False

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as PETSc may call it."""

        @wraps(function)
        def guarded(*arguments):
            if self.error is None:
                try:
                    self._inside = True
                    if self._interrupted:
                        raise KeyboardInterrupt
                    return function(*arguments)
                except BaseException as error:
                    self._inside = False
                    self.error = error
                finally:
                    self._inside = False
            return self._abandon(*arguments)

        return guarded

    def run(self, solve: Callable[[], None]) -> None:
        """Call what has PETSc call guarded functions; their exception is then in `error`."""
        self.error, self._interrupted = None, False
        # Only Python's own way with Ctrl-C is changed, and only the main thread hears of it.
        main = threading.current_thread() is threading.main_thread()
        heard = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heard:
            signal.signal(signal.SIGINT, self._note)
        try:
            solve()
        except PETSc.Error:
            if self.error is None:
                raise
        finally:
            if heard:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._interrupted and self.error is None:
            self.error = KeyboardInterrupt()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self._inside:
            raise KeyboardInterrupt
