# SPDX-License-Identifier: MIT
"""Machine code of this computer from C, where it has a compiler: libraries kept in a cache, and programs as C.

What is compiled is kept in the user's cache folder (`$XDG_CACHE_HOME/spon`, by default `~/.cache/spon`), under a name
that says for which compiler and instructions it is.
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
from collections.abc import Mapping
from pathlib import Path

# For the very processor, with the freedom to compute lanes together, but none that changes what NaN and ∞ are.
_FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
          "-fopenmp", "-fPIC", "-shared")  # fmt: skip


def compiler() -> tuple[str, ...]:
    """The command of the C compiler, `$CC` or cc; empty if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(command[0])
    return (found, *command[1:]) if found else ()


def source(package: str, file: str) -> str:
    """The text of a C file of a package."""
    return (importlib.resources.files(package) / file).read_text()


def library(text: str, constants: Mapping[str, str | int]) -> ctypes.CDLL:
    """What C source with these constants is as machine code, from the cache or compiled now.

    Raises:
        OSError: no compiler, one that fails, or no place for what it makes; says what it said.
    """
    cc = compiler()
    if not cc:
        raise OSError("there is no C compiler: need cc, or one that $CC names")
    return _library(text, tuple(constants.items()), cc)


@functools.lru_cache(maxsize=64)
def _library(text: str, constants: tuple[tuple[str, str | int], ...], cc: tuple[str, ...]) -> ctypes.CDLL:
    flags = [*_FLAGS, *(f"-D{name}={value}" for name, value in constants)]
    # The predefined macros tell the compiler's version and the instructions of this processor.
    known = _run(*cc, "-march=native", "-dM", "-E", "-x", "c", os.devnull)
    name = hashlib.sha256("\n".join([text, known, *flags]).encode()).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):
        raise OSError("there is no home folder to keep machine code in: set $XDG_CACHE_HOME")
    path = Path(cache) / "spon" / f"{name}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # damaged, or made on another system with the same home
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each process under a name of its own, and renamed when it is whole: several may be at it.
    with tempfile.TemporaryDirectory(dir=path.parent) as own:
        written, part = Path(own) / "source.c", Path(own) / "part.so"
        written.write_text(text)
        _run(*cc, *flags, "-o", str(part), str(written), "-lm")
        part.replace(path)
    return ctypes.CDLL(str(path))


def _run(*command: str) -> str:
    """What a command prints; raises OSError with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Compiled:
    """C source with constants as a library, which is looked up again where it was sent to or copied."""

    def __init__(self, text: str, constants: dict[str, str | int]):
        self._made_of = text, constants
        self.library = library(text, constants)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "library"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.library = library(*self._made_of)


def or_torch(make, what: str):
    """What `make` returns, or None, with a warning, if the compiler fails."""
    try:
        return make()
    except OSError as error:
        warnings.warn(f"{what} could not be compiled and is evaluated by torch: {error}", stacklevel=2)
        return None
