# SPDX-License-Identifier: MIT
"""Translates UFL to programs that torch evaluates: energy, stress and tangent of a material, node by node.

The UFL of a material, written once for the finite element solver, is the only definition of the law. UFL lowers its
algebra and expands its derivatives. The result is evaluated component by component (a component of a tensor, with
values of the free indices, is a scalar), and each scalar becomes a node of `coupling.arithmetic`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from ufl import classes as u
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.algorithms.apply_derivatives import apply_derivatives
from ufl.core.multiindex import Index

from coupling.arithmetic import Arithmetic, Number, Truth, constant
from fe2 import RVE, Material
from spon import LocalLaws, LocalSolve, PhaseLaw, Program

Expr = Any  # UFL expressions, for which UFL has no types


class TranslationError(ValueError):
    """A UFL expression or a material that has no program."""


# UFL's functions of one argument: the operation, and the function of floats.
_FUNCTIONS: dict[type, tuple[str, Callable[[float], float]]] = {
    u.Sqrt: ("sqrt", math.sqrt),
    u.Exp: ("exp", math.exp),
    u.Ln: ("ln", math.log),
    u.Sin: ("sin", math.sin),
    u.Cos: ("cos", math.cos),
    u.Tan: ("tan", math.tan),
    u.Asin: ("asin", math.asin),
    u.Acos: ("acos", math.acos),
    u.Atan: ("atan", math.atan),
    u.Sinh: ("sinh", math.sinh),
    u.Cosh: ("cosh", math.cosh),
    u.Tanh: ("tanh", math.tanh),
    u.Erf: ("erf", math.erf),
    u.Abs: ("abs", abs),
}

# Comparisons: the operation, and whether its operands are swapped.
_COMPARISONS: dict[type, tuple[str, bool]] = {
    u.LT: ("lt", False),
    u.GT: ("lt", True),
    u.LE: ("le", False),
    u.GE: ("le", True),
    u.EQ: ("eq", False),
    u.NE: ("ne", False),
}

_Indices = dict[int, int]  # count of a free UFL index → its value


class _Translator:
    """Evaluates components of UFL expressions as numbers of an `Arithmetic`."""

    def __init__(self, inputs: Mapping[str, Expr], name: str):
        self.arithmetic = Arithmetic()
        self.name = name
        self.sizes = [(key, math.prod(x.ufl_shape)) for key, x in inputs.items()]
        self.first: dict[Expr, int] = {}  # the inputs, and the number of their first component
        start = 0
        for (_, size), x in zip(self.sizes, inputs.values()):
            self.first[_terminal(x)] = start
            start += size
        self.known: dict[Any, Number] = {}

    def program(self, expression: Expr) -> Program:
        lowered = apply_derivatives(apply_algebra_lowering(ufl.as_ufl(expression)))
        if lowered.ufl_free_indices:
            raise self.error(lowered, "has free indices")
        shape = lowered.ufl_shape
        outputs = [self.number(lowered, tuple(map(int, c)), {}) for c in np.ndindex(shape)]
        return self.arithmetic.program(self.sizes, outputs, shape)

    def error(self, x: Expr, why: str) -> TranslationError:
        text = str(x)
        return TranslationError(f"{self.name}: {type(x).__name__} {text[:77] + '...' * (len(text) > 77)} {why}")

    def number(self, x: Expr, component: tuple[int, ...], indices: _Indices) -> Number:
        """A component of `x`, for values of its free indices."""
        key = id(x), component, tuple(indices[i] for i in x.ufl_free_indices)
        if key not in self.known:
            try:
                self.known[key] = self._number(x, component, indices)
            except ArithmeticError as error:
                raise self.error(x, f"cannot be evaluated: {error}") from None
        return self.known[key]

    def _number(self, x: Expr, component: tuple[int, ...], indices: _Indices) -> Number:
        a, kind, operands = self.arithmetic, type(x), x.ufl_operands
        if isinstance(x, u.Terminal):
            return self.terminal(x, component)
        if kind is u.Variable:
            return self.number(operands[0], component, indices)
        if kind is u.ListTensor:
            return self.number(operands[component[0]], component[1:], indices)
        if kind is u.ComponentTensor:
            values = dict(zip((i.count() for i in operands[1]), component))
            return self.number(operands[0], (), indices | values)
        if kind is u.Indexed:
            at = tuple(indices[i.count()] if isinstance(i, Index) else int(i) for i in operands[1])
            return self.number(operands[0], at, indices)
        if kind is u.IndexSum:
            (index,) = operands[1]
            total = constant(0.0)
            for k in range(x.dimension()):
                total = a.add(total, self.number(operands[0], component, indices | {index.count(): k}))
            return total
        if kind is u.Conditional:
            condition = self.truth(operands[0], indices)
            return a.select(condition, *(self.number(o, component, indices) for o in operands[1:]))
        return self.operation(x, [self.number(o, component if o.ufl_shape else (), indices) for o in operands])

    def terminal(self, x: Expr, component: tuple[int, ...]) -> Number:
        if x in self.first:
            offset = int(np.ravel_multi_index(component, x.ufl_shape)) if component else 0
            return self.arithmetic.input(self.first[x] + offset)
        if isinstance(x, u.Zero):
            return constant(0.0)
        if isinstance(x, u.RealValue):
            return constant(float(x))
        if isinstance(x, u.Identity):
            return constant(float(component[0] == component[1]))
        if isinstance(x, u.PermutationSymbol):
            return constant(float(x[component]))
        if isinstance(x, u.Constant) and hasattr(x, "value"):
            return constant(float(x.value[component]))
        inputs = ", ".join(map(repr, dict(self.sizes)))
        raise self.error(x, f"is neither an input ({inputs}) nor a constant")

    def operation(self, x: Expr, operands: list[Number]) -> Number:
        a, kind = self.arithmetic, type(x)
        if kind is u.Sum:
            return a.add(*operands)
        if kind is u.Product:
            return a.multiply(*operands)
        if kind is u.Division:
            return a.divide(*operands)
        if kind is u.Power:
            return a.power(*operands)
        if kind is u.Atan2:
            return a.function("atan2", math.atan2, *operands)
        if kind is u.MinValue:
            return a.function("min", min, *operands)
        if kind is u.MaxValue:
            return a.function("max", max, *operands)
        if kind in (u.Real, u.Conj):  # of a real number
            return operands[0]
        if kind in _FUNCTIONS:
            return a.function(*_FUNCTIONS[kind], *operands)
        raise self.error(x, "has no translation")

    def truth(self, x: Expr, indices: _Indices) -> Truth:
        """A condition, for values of the free indices."""
        a, kind = self.arithmetic, type(x)
        if kind in _COMPARISONS:
            name, swapped = _COMPARISONS[kind]
            values = [self.number(o, (), indices) for o in x.ufl_operands]
            return a.compare(name, *(reversed(values) if swapped else values))
        if kind not in (u.AndCondition, u.OrCondition, u.NotCondition):
            raise self.error(x, "has no translation")
        truths = [self.truth(o, indices) for o in x.ufl_operands]
        if kind is u.NotCondition:
            return a.opposite(*truths)
        return a.both(*truths) if kind is u.AndCondition else a.either(*truths)


def _terminal(x: Expr) -> Expr:
    x = x.ufl_operands[0] if isinstance(x, u.Variable) else x
    if not isinstance(x, u.Terminal):
        raise TypeError(f"an input must be a UFL terminal or a variable of one, not {type(x).__name__} {x}")
    return x


def translate(expression: Expr, inputs: Mapping[str, Expr], name: str = "expression") -> Program:
    """The program of a UFL expression.

    UFL expands the derivatives. `fem.Constant`s have their values at translation.

    Args:
        expression: of any shape, without free indices.
        inputs: name → UFL terminal (`ufl.Coefficient`, `ufl.Constant`) or `ufl.variable` of one. The program takes
            one tensor for each input, in this order, with the components of the terminal row by row.
        name: of the expression, for messages.

    Raises:
        TranslationError: a node without translation, such as a coordinate or a coefficient that is no input; a constant
            part that is not finite; or hundreds of levels.
        TypeError: an input that is no terminal.
    """
    try:
        return _Translator(inputs, name).program(expression)
    except RecursionError:
        raise TranslationError(f"{name}: nested too deeply for UFL or for its translation; add in pairs") from None


def phase_law(material: Material, dim: int, plane: str = "strain") -> PhaseLaw:
    """The law of a path-independent material at a point.

    The stress is `Material.stress`: UFL's derivative of the energy, unless the material has its own. The tangent is
    UFL's derivative of the stress. Local unknowns, and in plane stress the strain through the thickness, are condensed
    as in `fe2.Body`.

    A program is as accurate as its UFL. Derivatives of an energy may cancel: those of `fe2.SaturatingElastic` have
    relative errors of order eps a₂/‖dev ε‖, in single precision 0.4 % at strains of 1e-6.

    Args:
        material: without state.
        dim: 2 or 3, of the RVE.
        plane: "strain" or "stress", for dim = 2.

    Raises:
        ValueError: another `dim` or `plane`.
        TranslationError: a material with state or that depends on time, or one that has no program.
    """
    name = type(material).__name__
    if dim not in (2, 3):
        raise ValueError(f"dim = {dim}: need 2 or 3")
    if plane not in ("strain", "stress"):
        raise ValueError(f"plane = {plane!r}: need 'strain' or 'stress'")
    if material.measure.scalar and plane == "stress":
        raise ValueError("plane = 'stress': the gradient of a scalar has no plane stress; leave out `plane`")
    if material.state_size:
        raise TranslationError(
            f"{name} has {material.state_size} state variables, so that its stress is no function of the strain alone; "
            "only path-independent materials have a law at a point"
        )
    if material.rate_dependent:
        raise TranslationError(
            f"{name} depends on time, so that its stress is no function of the strain alone; only path-independent "
            "materials have a law at a point"
        )
    thickness = dim == 2 and plane == "stress"
    mesh = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))  # constants need a domain
    measure = material.measure
    e = ufl.variable(ufl.Constant(mesh, (measure.size(dim),)))
    inputs = {"strain": e}
    local: Any = None
    size = material.local_size + thickness
    if size:
        local = inputs["local"] = ufl.variable(ufl.Constant(mesh, (size,)))

    law = material.bind(mesh)
    strain = measure.argument(measure.tensor(e), local[size - 1] if thickness else 0)
    energy = law.energy(strain, None, local)
    tensor = law.stress(strain, None, local)
    stress = measure.components_of(tensor, dim)
    tangent = ufl.diff(stress, e)

    def program(expression: Expr) -> Program:
        return translate(expression, inputs, name)

    solve = None
    if size:
        forces = [ufl.diff(energy, local)[i] for i in range(material.local_size)]
        residual = ufl.as_vector(forces + ([measure.through(tensor, strain)] if thickness else []))
        jacobian = ufl.diff(residual, local)
        inverse = ufl.as_matrix([[1 / jacobian[0, 0]]]) if size == 1 else ufl.inv(jacobian)
        tangent -= ufl.dot(ufl.diff(stress, local), ufl.dot(inverse, ufl.diff(residual, e)))
        solve = LocalSolve(program(ufl.dot(inverse, residual)))
    if material.symmetric:  # then so is the tangent, and one half of it suffices
        d = range(measure.size(dim))
        tangent = ufl.as_matrix([[tangent[min(i, j), max(i, j)] for j in d] for i in d])
    known = None if energy is None else program(energy)
    return PhaseLaw(name, program(stress), program(tangent), known, solve, measure.name)


class OrderedLaws(NamedTuple):
    """The laws of an RVE at its quadrature points, in their order.

    Attributes:
        laws: at the points sorted by phase, phases by ascending tag.
        order: (P,), the points of `rve.body`, numbered cell by cell, in the order of the laws:
            `values.reshape(P, -1)[order]` sorts values (cells, points, ...), and `np.argsort(order)` is the inverse.
    """

    laws: LocalLaws
    order: npt.NDArray[np.int64]


def local_laws(rve: RVE) -> OrderedLaws:
    """The laws of an RVE at its quadrature points.

    Args:
        rve: with path-independent materials.

    Raises:
        TranslationError: as `phase_law`.
    """
    body = rve.body
    per_cell = len(body.points)
    laws, points = [], []
    for tag, material in body.materials.items():
        laws.append(phase_law(material, body.dim, body.plane))
        cells = rve.domain.cell_tags.find(tag).astype(np.int64)
        points.append((cells[:, None] * per_cell + np.arange(per_cell)).ravel())
    return OrderedLaws(LocalLaws(tuple(laws), tuple(p.size for p in points)), np.concatenate(points))
