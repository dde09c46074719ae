# SPDX-License-Identifier: MIT
"""Programs: sequences of elementwise operations on torch tensors, as data.

A constitutive law translated from UFL is such a program, stored in a model file as JSON. Torch evaluates it at any
number of points, in any floating dtype and on any device; autograd and `torch.func` differentiate it.

The values of a program are numbered: first the components of the inputs, then the constants, then one for each step.

Derivatives of `select`: autograd multiplies the derivatives of the branch not taken by zero, and 0·∞ = NaN enters the
sum. So a branch needs finite derivatives also where it is not taken. Forward evaluation is not affected; therefore the
stress and the tangent of a law are programs of their own. The same holds for UFL's derivatives of a conditional,
unless the translation has merged them into one `select`.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch

Value = Any  # a tensor, or a float for a constant


class ProgramError(ValueError):
    """A damaged program, or data that is no program."""


def _extremum(limit: Callable, both: Callable) -> Callable[[Value, Value], torch.Tensor]:
    """Maximum or minimum; torch has one function for a float and another for two tensors."""

    def call(a: Value, b: Value) -> torch.Tensor:
        if isinstance(a, float):
            a, b = b, a
        return limit(a, b) if isinstance(b, float) else both(a, b)

    return call


_MATH = ("sqrt", "exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf", "abs", "neg")

# name → (function, kinds of the operands, kind of the result): n a number, t a number that torch needs as a tensor, c a
# constant, b a truth value.
OPERATIONS: dict[str, tuple[Callable[..., torch.Tensor], str, str]] = {
    "add": (operator.add, "nn", "n"),
    "sub": (operator.sub, "nn", "n"),
    "axpy": (lambda x, y, a: torch.add(x, y, alpha=a), "nnc", "n"),  # x + a y in one pass over memory
    "mul": (operator.mul, "nn", "n"),
    "div": (operator.truediv, "nn", "n"),
    "pow": (operator.pow, "nn", "n"),
    "atan2": (torch.atan2, "tt", "n"),
    "min": (_extremum(torch.clamp_max, torch.minimum), "nn", "n"),
    "max": (_extremum(torch.clamp_min, torch.maximum), "nn", "n"),
    "lt": (operator.lt, "nn", "b"),
    "le": (operator.le, "nn", "b"),
    "eq": (operator.eq, "nn", "b"),
    "ne": (operator.ne, "nn", "b"),
    "and": (torch.logical_and, "bb", "b"),
    "or": (torch.logical_or, "bb", "b"),
    "not": (torch.logical_not, "b", "b"),
    "select": (torch.where, "btt", "n"),
    "ln": (torch.log, "n", "n"),
} | {name: (getattr(torch, name), "n", "n") for name in _MATH}


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device):
    """Tensor of `values`, copied to its device once."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used in training later
        return torch.tensor(values, dtype=dtype, device=device).reshape(shape)


@dataclass(frozen=True)
class Program:
    """Elementwise operations from the components of inputs to an output, point by point.

    Call it with one tensor (..., size) for each input; leading axes are broadcast. The result has shape (..., *shape)
    and the dtype and device of the inputs.

    Args:
        inputs: name and size of each input.
        constants: finite numbers, rounded to the dtype of the inputs in the evaluation.
        steps: tuples (operation, *operands). Operands are numbers of earlier values, of which at least one depends on
            the inputs; `OPERATIONS` lists the operations.
        outputs: numbers of the values that fill the output, row by row.
        shape: of the output at a point, () for a scalar.

    Raises:
        ProgramError: an unknown operation.
        ProgramError: an operand that is not an earlier value of the right kind.
        ProgramError: a constant that is not finite.
        ProgramError: a shape that does not fit the outputs.
    """

    inputs: tuple[tuple[str, int], ...]
    constants: tuple[float, ...]
    steps: tuple[tuple[Any, ...], ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self):
        kinds = ["n"] * self._components + ["c"] * len(self.constants)
        for k, value in enumerate(self.constants):
            if not (isinstance(value, float) and math.isfinite(value)):
                raise ProgramError(f"constants[{k}] = {value!r}: need a finite float")
        for k, (name, *operands) in enumerate(self.steps):
            if name not in OPERATIONS:
                raise ProgramError(f"steps[{k}]: unknown operation {name!r}")
            _, wanted, result = OPERATIONS[name]
            if len(operands) != len(wanted):
                raise ProgramError(f"steps[{k}]: {name!r} has {len(operands)} operands, needs {len(wanted)}")
            found = [self._kind(kinds, i, f"steps[{k}] ({name!r})") for i in operands]
            if not all(f == w or (w in "nt" and f in "nc") for f, w in zip(found, wanted)):
                raise ProgramError(f"steps[{k}]: {name!r} takes operands of kinds {wanted!r}, not {''.join(found)!r}")
            # Python would evaluate constants with its own rounding; `axpy` needs x and y to be tensors.
            if set(found) == {"c"} or (name == "axpy" and "c" in found[:2]):
                raise ProgramError(f"steps[{k}]: {name!r} has constant operands only, need its value")
            kinds.append(result)
        for k, i in enumerate(self.outputs):
            if self._kind(kinds, i, f"outputs[{k}]") == "b":
                raise ProgramError(f"outputs[{k}] = {i} is a truth value")
        if math.prod(self.shape) != len(self.outputs):
            raise ProgramError(f"shape = {self.shape} does not fit {len(self.outputs)} outputs")

    @staticmethod
    def _kind(kinds: list[str], i: int, where: str) -> str:
        if not (type(i) is int and 0 <= i < len(kinds)):
            raise ProgramError(f"{where}: operand {i!r} is not the number of an earlier value, 0 to {len(kinds) - 1}")
        return kinds[i]

    @cached_property
    def _components(self) -> int:
        return sum(size for _, size in self.inputs)

    @cached_property
    def values(self) -> tuple[float, ...] | None:
        """The outputs, row by row, if they do not depend on the inputs, else None."""
        numbered = dict(enumerate(self.constants, self._components))
        return tuple(numbered[i] for i in self.outputs) if set(self.outputs) <= numbered.keys() else None

    @cached_property
    def _last_use(self) -> tuple[tuple[int, ...], ...]:
        """For each step, the values that no later step uses."""
        seen, last = set(self.outputs), []
        for _, *operands in reversed(self.steps):
            last.append(tuple(set(operands) - seen))
            seen.update(operands)
        return tuple(reversed(last))

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The output (..., *shape) at points.

        Args:
            inputs: tensors (..., size) of one floating dtype and device.

        Raises:
            ValueError: another number of inputs than the program has, or of another size.
            TypeError: a dtype that is not floating, or different dtypes.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(f"{len(inputs)} inputs, need {len(self.inputs)}: {', '.join(n for n, _ in self.inputs)}")
        for x, (name, size) in zip(inputs, self.inputs):
            if x.ndim == 0 or x.shape[-1] != size:
                raise ValueError(f"{name} has shape {tuple(x.shape)}, need (..., {size})")
            if not x.is_floating_point() or x.dtype != inputs[0].dtype:
                raise TypeError(f"{name} has dtype {x.dtype}, need a floating dtype, the same for all inputs")
        points = torch.broadcast_shapes(*(x.shape[:-1] for x in inputs))
        if self.values is not None:
            fixed = constant(self.values, self.shape, inputs[0].dtype, inputs[0].device)
            return fixed.expand(points + self.shape)

        def scalar(value: float) -> torch.Tensor:
            return constant((value,), (), inputs[0].dtype, inputs[0].device)

        # Components first, in one copy: the steps then access contiguous memory.
        rows = [x.expand(points + x.shape[-1:]).movedim(-1, 0).contiguous() for x in inputs]
        values: list[Value] = [c for x in rows for c in x.unbind(0)]
        values += self.constants
        for (name, *operands), done in zip(self.steps, self._last_use):
            function, kinds, _ = OPERATIONS[name]
            arguments = [values[i] for i in operands]
            if "t" in kinds:
                arguments = [scalar(v) if isinstance(v, float) else v for v in arguments]
            values.append(function(*arguments))
            for i in done:
                values[i] = None
        outputs = [values[i] for i in self.outputs]
        if not self.shape:
            return outputs[0]
        outputs = [scalar(v).expand(points) if isinstance(v, float) else v for v in outputs]
        return torch.stack(outputs, -1).reshape(points + self.shape)

    def to_json(self) -> dict[str, Any]:
        """The program as lists, strings and numbers."""
        return {
            "inputs": [list(i) for i in self.inputs],
            "constants": list(self.constants),
            "steps": [list(s) for s in self.steps],
            "outputs": list(self.outputs),
            "shape": list(self.shape),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Program":
        """The program of `to_json`.

        Raises:
            ProgramError: data that is no program; names the entry.
        """
        names = "inputs", "constants", "steps", "outputs", "shape"
        inputs, constants, steps, outputs, shape = read(data, "program", *names)
        for k, pair in enumerate(sequence(inputs, "inputs")):
            named = isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
            if not (named and type(pair[1]) is int and pair[1] > 0):
                raise ProgramError(f"inputs[{k}] = {pair!r}: need a name and a positive size")
        for k, step in enumerate(sequence(steps, "steps")):
            if not (isinstance(step, (list, tuple)) and step and isinstance(step[0], str)):
                raise ProgramError(f"steps[{k}] = {step!r}: need an operation and its operands")
        for k, n in enumerate(sequence(shape, "shape")):
            if not (type(n) is int and n > 0):
                raise ProgramError(f"shape[{k}] = {n!r}: need a positive integer")
        return cls(
            inputs=tuple((str(name), size) for name, size in inputs),
            constants=tuple(float(c) if type(c) is int else c for c in sequence(constants, "constants")),
            steps=tuple(tuple(s) for s in steps),
            outputs=tuple(sequence(outputs, "outputs")),
            shape=tuple(shape),
        )


def beside(*programs: Program) -> Program:
    """One program with the outputs of several in succession, which evaluates their common parts once.

    Args:
        programs: of the same inputs.

    Raises:
        ProgramError: programs of different inputs.
    """
    inputs, size = programs[0].inputs, sum(size for _, size in programs[0].inputs)
    if any(program.inputs != inputs for program in programs):
        raise ProgramError(f"the programs have the inputs {[program.inputs for program in programs]}, need the same")
    # By their digits, since 0.0 and -0.0 are different constants.
    constants = {value.hex(): value for program in programs for value in program.constants}
    number = {digits: size + k for k, digits in enumerate(constants)}
    first = size + len(constants)
    steps: dict[tuple[Any, ...], int] = {}
    outputs: list[int] = []
    for program in programs:
        known = [*range(size), *(number[value.hex()] for value in program.constants)]
        for name, *operands in program.steps:
            step = (name, *(known[i] for i in operands))
            known.append(steps.setdefault(step, first + len(steps)))
        outputs += [known[i] for i in program.outputs]
    return Program(inputs, tuple(constants.values()), tuple(steps), tuple(outputs), (len(outputs),))


def sequence(value: Any, name: str) -> Sequence:
    """`value`, which must be a list or a tuple.

    Raises:
        ProgramError: it is not.
    """
    if not isinstance(value, (list, tuple)):
        raise ProgramError(f"{name} is a {type(value).__name__}, need a list")
    return value


def read(data: Any, what: str, *names: str) -> list[Any]:
    """The entries `names` of the mapping `data`.

    Raises:
        ProgramError: no mapping, or one with other entries.
    """
    if not isinstance(data, Mapping):
        raise ProgramError(f"{what}: got a {type(data).__name__}, need a mapping with {', '.join(names)}")
    for name in names:
        if name not in data:
            raise ProgramError(f"{what}: {name!r} is missing")
    if unknown := [k for k in data if k not in names]:
        raise ProgramError(f"{what}: unknown field {unknown[0]!r}")
    return [data[name] for name in names]
