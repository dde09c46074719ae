# SPDX-License-Identifier: MIT
"""Machine code from C, on computers with a compiler: shared libraries in a cache.

Libraries are kept in the user's cache folder (`$XDG_CACHE_HOME/spon`, by default `~/.cache/spon`), each under a hash of
its source, its constants, the compiler and the instructions of the processor.
"""

import ctypes
import functools
import hashlib
import importlib.resources
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Not by cffi: its API mode builds extension modules, which needs the headers of Python and setuptools; its ABI mode
# only loads libraries, as ctypes does.

# For this processor, with vectorisation, but without options that change NaN and ∞.
_FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
          "-fopenmp", "-fPIC", "-shared")  # fmt: skip


def compiler() -> tuple[str, ...]:
    """The command of the C compiler, `$CC` or cc; empty without one."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(command[0])
    return (found, *command[1:]) if found else ()


def source(package: str, file: str) -> str:
    """The text of a C file in a package."""
    return (importlib.resources.files(package) / file).read_text()


def library(text: str, constants: Mapping[str, str | int]) -> ctypes.CDLL:
    """The shared library of C source, from the cache or compiled now.

    Args:
        text: the source.
        constants: macros to define.

    Raises:
        OSError: no compiler, no folder for the cache, or the compiler fails; the message quotes its output.
    """
    cc = compiler()
    if not cc:
        raise OSError("no C compiler: need cc, or $CC")
    return _library(text, tuple(constants.items()), cc)


@functools.lru_cache(maxsize=64)
def _library(text: str, constants: tuple[tuple[str, str | int], ...], cc: tuple[str, ...]) -> ctypes.CDLL:
    flags = [*_FLAGS, *(f"-D{name}={value}" for name, value in constants)]
    # The predefined macros contain the compiler's version and the instructions of this processor.
    macros = _run(*cc, "-march=native", "-dM", "-E", "-x", "c", os.devnull)
    name = hashlib.sha256("\n".join([text, macros, *flags]).encode()).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):
        raise OSError("no home folder for the cache of machine code: set $XDG_CACHE_HOME")
    path = Path(cache) / "spon" / f"{name}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # damaged, or compiled on another system with the same home
            path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may compile at once: each uses a folder of its own and renames the complete library.
    with tempfile.TemporaryDirectory(dir=path.parent) as own:
        c_file, part = Path(own) / "source.c", Path(own) / "part.so"
        c_file.write_text(text)
        _run(*cc, *flags, "-o", str(part), str(c_file), "-lm")
        part.replace(path)
    return ctypes.CDLL(str(path))


def _run(*command: str) -> str:
    """The output of a command; OSError with its error output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Compiled:
    """The shared library of C source; copies and unpickled objects load it again.

    Args:
        text: the source.
        constants: macros to define.

    Raises:
        OSError: as `library`.
    """

    def __init__(self, text: str, constants: dict[str, str | int]):
        self._source = text, constants
        self.library = library(text, constants)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "library"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.library = library(*self._source)


def or_torch(make: Callable[[], T], what: str) -> T | None:
    """The result of `make`; if the compiler fails, None with a warning that torch is used instead.

    Args:
        make: function that compiles.
        what: name of its result, for the warning.
    """
    try:
        return make()
    except OSError as error:
        warnings.warn(f"{what} could not be compiled and is evaluated by torch: {error}", stacklevel=2)
        return None
