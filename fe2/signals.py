# SPDX-License-Identifier: MIT
"""Signals that end a run, as a batch system sends them before its time limit."""

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from mpi4py import MPI

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(SystemExit):
    """A run stopped by a signal.

    Uncaught, it ends the program with the code 128 + the signal's number, the convention of shells.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self._name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self._name}"


class SignalListener:
    """A context manager that records signals, which then do not end the program; for the main thread only.

    Args:
        signals: to listen to.

    Attributes:
        number: of the last signal, or 0.
    """

    def __init__(self, signals: Sequence[signal.Signals] = ()):
        self.number, self._signals = 0, signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SignalListener":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number

    def raise_if_signalled(self, comm: MPI.Comm) -> None:
        """Raise Stopped on all ranks if a signal has reached any (collective)."""
        if number := comm.allreduce(self.number, MPI.MAX):
            raise Stopped(number)
