# SPDX-License-Identifier: MIT
"""Machine code of this computer from C, where it has a compiler: libraries kept in a cache, and programs as C.

What is compiled is kept in the user's cache folder (`$XDG_CACHE_HOME/spon`, by default `~/.cache/spon`), under a name
that says for which compiler and instructions it is.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from spon.program import OPERATIONS, Program

# For the very processor, with the freedom to compute lanes together, but none that changes what NaN and ∞ are.
_FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
          "-fopenmp", "-fPIC", "-shared")  # fmt: skip
_FOLDER = Path(__file__).parent
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "eq": "==", "ne": "!=", "and": "&&",
          "or": "||"}  # fmt: skip
# As in torch, NaN is the least and the greatest of what it is compared with.
_FORMS = {
    "axpy": "{0} + {2} * {1}",
    "neg": "-{0}",
    "not": "!{0}",
    "select": "{0} ? {1} : {2}",
    "min": "{0} != {0} || {0} < {1} ? {0} : {1}",
    "max": "{0} != {0} || {0} > {1} ? {0} : {1}",
    "ln": "log({0})",
    "abs": "fabs({0})",
}


def compiler() -> tuple[str, ...]:
    """The command of the C compiler, `$CC` or cc; empty if there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(command[0])
    return (found, *command[1:]) if found else ()


def function(name: str, program: Program) -> str:
    """A program of one input as a C function of lanes: static void name(const REAL *constants, lanes x[], lanes y[]).

    Programs that differ in their constants alone are the same code. Where several are divided by one number, they are
    multiplied by its inverse, since a division takes as long as ten products.
    """
    divided = Counter(operands[1] for operation, *operands in program.steps if operation == "div")
    inverses: dict[int, str] = {}
    ((_, size),) = program.inputs
    known = [f"x[{i}][b]" for i in range(size)] + [f"c{k}" for k in range(len(program.constants))]
    lines = [f"  const REAL c{k} = constants[{k}];" for k in range(len(program.constants))] + ["  EACH {"]
    for operation, *operands in program.steps:
        values = [known[i] for i in operands]
        if operation == "div" and divided[operands[1]] > 1:
            if operands[1] not in inverses:
                inverses[operands[1]] = f"r{len(inverses)}"
                lines.append(f"    const REAL {inverses[operands[1]]} = 1 / {values[1]};")
            right = f"{values[0]} * {inverses[operands[1]]}"
        elif operation in _INFIX:
            right = f" {_INFIX[operation]} ".join(values)
        else:
            right = _FORMS.get(operation, f"{operation}({', '.join(values)})").format(*values)
        kind = "int" if OPERATIONS[operation][2] == "b" else "REAL"
        known.append(f"v{len(known)}")
        lines.append(f"    const {kind} {known[-1]} = {right};")
    lines += [f"    y[{k}][b] = {known[i]};" for k, i in enumerate(program.outputs)] + ["  }"]
    # Without `restrict` the compiler would have to check which of so many arrays are the same.
    into = f"lanes x[restrict {size}], lanes y[restrict {len(program.outputs)}]"
    head = f"static void {name}(const REAL *restrict constants, {into})"
    return "\n".join([head, "{", *lines, "}", ""])


def source(file: str) -> str:
    """The text of a C file of this package, after `lanes.h`."""
    return (_FOLDER / file).read_text()


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
