# SPDX-License-Identifier: MIT
"""Callbacks of PETSc, whose exceptions and Ctrl-C are raised again after the solve."""

import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from petsc4py import PETSc


def _without_owner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does not keep its object alive.

    PETSc keeps its callbacks. Python cannot see that, so that an object whose solver calls its methods would live for
    ever, with all communicators of its functions, of which MPI has some thousand.
    """
    if not hasattr(function, "__self__"):
        return function
    method = weakref.WeakMethod(function)

    def call(*arguments: Any) -> Any:
        found = method()
        assert found is not None  # the caller of the solve holds the object
        return found(*arguments)

    return call


class Callbacks:
    """Guards functions so that exceptions do not cross PETSc, which would be left in mid-solve.

    The first exception of a guarded function is kept and ends the solve. Ctrl-C raises KeyboardInterrupt in guarded
    functions only; during PETSc's own work it waits for the next of them, or for the end of the solve.

    Args:
        abandon: called in place of a guarded function, with its arguments, from the first exception on; its result
            must stop PETSc.

    Attributes:
        error: exception of the last `run`, or None.
    """

    def __init__(self, abandon: Callable[..., Any]):
        self.error: BaseException | None = None
        self._abandon, self._inside, self._interrupted = _without_owner(abandon), False, False

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as PETSc may call it; the object of a method is not kept alive."""
        function = _without_owner(function)

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
        """Run a solve that calls guarded functions; their exception is then in `error`."""
        self.error, self._interrupted = None, False
        # Only Python's default handler is replaced, and only the main thread receives signals.
        main = threading.current_thread() is threading.main_thread()
        default = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default:
            signal.signal(signal.SIGINT, self._note)
        try:
            solve()
        except PETSc.Error:
            if self.error is None:
                raise
        finally:
            if default:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._interrupted and self.error is None:
            self.error = KeyboardInterrupt()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self._inside:
            raise KeyboardInterrupt
