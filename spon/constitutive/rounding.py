# SPDX-License-Identifier: MIT
"""Bounds of the rounding errors of a program's results, by running error analysis.

Each value has an error bound. Each step propagates the bounds of its operands by its derivatives and adds its own
rounding (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, section 3.3, after Wilkinson).
Where terms cancel, as in n − ln(1 + n) at small n, the errors of the terms remain, so the bound is valid even if the
result is only rounding. Bounds are of first order in the unit roundoff.
"""

import torch
from torch import Tensor

from spon.constitutive.program import OPERATIONS, Program, constant

# Operation → error of its result v, in units of roundoff, from the errors e of its operands x.
_PROPAGATED = {
    "add": lambda v, x, e: e[0] + e[1],
    "sub": lambda v, x, e: e[0] + e[1],
    "axpy": lambda v, x, e: e[0] + x[2].abs() * e[1],
    "mul": lambda v, x, e: x[1].abs() * e[0] + x[0].abs() * e[1],
    "div": lambda v, x, e: (e[0] + v.abs() * e[1]) / x[1].abs(),
    "pow": lambda v, x, e: (
        _unless_exact(e[0], x[1].abs() * x[0].abs() ** (x[1] - 1)) + _unless_exact(e[1], (v * x[0].abs().log()).abs())
    ),
    "atan2": lambda v, x, e: (x[1].abs() * e[0] + x[0].abs() * e[1]) / (x[0] ** 2 + x[1] ** 2),
    "min": lambda v, x, e: torch.maximum(e[0], e[1]),
    "max": lambda v, x, e: torch.maximum(e[0], e[1]),
    "select": lambda v, x, e: torch.where(x[0], e[1], e[2]),
    "neg": lambda v, x, e: e[0],
    "abs": lambda v, x, e: e[0],
    # |√(x + δ) − √x| ≤ √δ, also where x = 0.
    "sqrt": lambda v, x, e: _unless_exact(e[0], 1 / torch.maximum(v, (_unit(v) * e[0]).sqrt())),
    "exp": lambda v, x, e: v * e[0],
    "ln": lambda v, x, e: e[0] / x[0].abs(),
    "sin": lambda v, x, e: x[0].cos().abs() * e[0],
    "cos": lambda v, x, e: x[0].sin().abs() * e[0],
    "tan": lambda v, x, e: (1 + v**2) * e[0],
    "asin": lambda v, x, e: e[0] / v.cos(),
    "acos": lambda v, x, e: e[0] / v.sin(),
    "atan": lambda v, x, e: e[0] / (1 + x[0] ** 2),
    "sinh": lambda v, x, e: x[0].cosh() * e[0],
    "cosh": lambda v, x, e: x[0].sinh().abs() * e[0],
    "tanh": lambda v, x, e: (1 - v**2) * e[0],
    "erf": lambda v, x, e: 1.13 * e[0],
}
# Roundings of the operation itself: two for library functions with errors up to a unit in the last place.
_OWN = dict.fromkeys(OPERATIONS, 2) | dict.fromkeys(("add", "sub", "mul"), 1)
_OWN |= dict.fromkeys(("min", "max", "select", "neg", "abs"), 0)


def _unit(like: Tensor) -> float:
    return torch.finfo(like.dtype).eps / 2


def _unless_exact(error: Tensor, factor: Tensor) -> Tensor:
    """The product of error and factor; zero for exact operands, also if the factor is infinite."""
    return torch.where(error == 0, error, error * factor)


@torch.no_grad()
def rounding(program: Program, *inputs: Tensor) -> Tensor:
    """Bounds of the rounding errors of a program's output (..., *shape).

    Args:
        program: any.
        inputs: tensors (..., size), correctly rounded.
    """
    like, unit = inputs[0], _unit(inputs[0])
    points = torch.broadcast_shapes(*(x.shape[:-1] for x in inputs))
    values = [c for x in inputs for c in x.expand(points + x.shape[-1:]).unbind(-1)]
    errors = [v.abs() for v in values]
    values += [constant((c,), (), like.dtype, like.device) for c in program.constants]
    errors += [torch.zeros_like(values[0])] * len(program.constants)
    for name, *operands in program.steps:
        function, _, kind = OPERATIONS[name]
        x, e = [values[i] for i in operands], [errors[i] for i in operands]
        v = x[0] + x[2] * x[1] if name == "axpy" else function(*x)
        values.append(v)
        truth = kind == "b"
        errors.append(torch.zeros_like(values[0]) if truth else _PROPAGATED[name](v, x, e) + _OWN[name] * v.abs())
    found = torch.stack([errors[i].expand(points) for i in program.outputs], -1)
    return unit * found.reshape(points + program.shape)
