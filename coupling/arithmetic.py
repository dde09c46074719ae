# SPDX-License-Identifier: MIT
"""Scalar expressions, simplified and shared as they are built, and the program that evaluates them.

UFL's derivatives contain many zeros, ones, constant factors and equal terms. Three rules remove them:

- A number is a constant times a *core* without constant factor, so that constants are multiplied at translation.
- Equal cores are one node (hash consing), so that each is evaluated once.
- A sum of input components is one node with a row of coefficients, so that dev ε and dev dev ε are the same node.

No reordering loses accuracy: rounding differs from that of the original expression by a few ulp.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spon import Program

# A coefficient below this fraction of its parts is the rounding error of a cancellation.
_ROUNDING = 8 * 2.0**-53


@dataclass(frozen=True, slots=True)
class Number:
    """`factor` times the node `core`; constants have the core ONE."""

    factor: float
    core: int


ONE = 0  # the node of the constant 1
Truth = bool | int  # a constant condition, or the node of a condition


def constant(value: float) -> Number:
    """A number that does not depend on the inputs.

    Raises:
        ArithmeticError: it is not finite.
    """
    if not math.isfinite(value):
        raise ArithmeticError(f"a constant is {value}")
    return Number(float(value), ONE)


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


@dataclass
class Arithmetic:
    """Builds expressions of scalar inputs.

    A node is a tuple (operation, *operands): ("input", k); ("linear", ((node, factor), ...)), a sum of input components
    whose first factor is 1; ("scale", factor, node); ("axpy", x, y, a) for x + a y; or an operation of
    `spon.constitutive.program`.

    Args:
        nodes: in the order of their numbers.
        known: node → its number.
    """

    nodes: list[tuple[Any, ...]] = field(default_factory=lambda: [("one",)])
    known: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def node(self, *key: Any) -> int:
        """The number of the node `key`, which is added if it is new."""
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(key)
        return self.known[key]

    def input(self, k: int) -> Number:
        """Component `k` of all inputs."""
        return Number(1.0, self.node("input", k))

    def plain(self, x: Number) -> int:
        """The node of `x` with its factor."""
        return x.core if x.factor == 1.0 else self.node("scale", x.factor, x.core)

    # Algebra.

    def add(self, x: Number, y: Number) -> Number:
        """x + y."""
        if x.factor == 0.0 or y.factor == 0.0:
            return y if x.factor == 0.0 else x
        if x.core == y.core == ONE:
            return constant(x.factor + y.factor)
        if self._linear(x.core) and self._linear(y.core):
            return self._sum(x, y)
        if x.core == y.core:
            return constant(0.0) if _cancels(x.factor, y.factor) else Number(x.factor + y.factor, x.core)
        a, b = self.nodes[x.core], self.nodes[y.core]
        if a[0] == b[0] == "select" and a[1] == b[1]:
            p, q = (self.add(self._branch(x, i), self._branch(y, i)) for i in (2, 3))
            return self.select(a[1], p, q)
        for first, second in ((x, y), (y, x)):
            if self._switch(first.core) and second.core == ONE:
                p, q = (self.add(self._branch(first, i), second) for i in (2, 3))
                return self.select(self.nodes[first.core][1], p, q)
        for first, second in ((x, y), (y, x)):
            quotient = self.nodes[second.core]
            if first.core != ONE and quotient[:2] == ("div", first.core):  # p + q/w = p (1 + 1/w), shared by a vector
                part = self.divide(constant(second.factor), Number(1.0, quotient[2]))
                return self.multiply(Number(1.0, first.core), self.add(constant(first.factor), part))
        if y.core != ONE and (x.core == ONE or y.core < x.core):
            x, y = y, x
        return Number(x.factor, self.node("axpy", x.core, y.core, constant(y.factor / x.factor).factor))

    def multiply(self, x: Number, y: Number) -> Number:
        """x y."""
        factor = constant(x.factor * y.factor).factor
        if factor == 0.0 or y.core == ONE:
            return Number(factor, x.core if factor else ONE)
        if x.core == ONE:
            return Number(factor, y.core)
        for first, second in ((x, y), (y, x)):
            if self._switch(first.core):  # a derivative times a factor of 1 or 0: choose instead
                p, q = (self.multiply(self._branch(first, i), second) for i in (2, 3))
                return self.select(self.nodes[first.core][1], p, q)
        for first, second in ((x, y), (y, x)):
            if self.nodes[second.core][:2] == ("div", ONE):
                return Number(factor, self.node("div", first.core, self.nodes[second.core][2]))
        return Number(factor, self.node("mul", *sorted((x.core, y.core))))

    def divide(self, x: Number, y: Number) -> Number:
        """x / y.

        Raises:
            ArithmeticError: y is the constant 0.
        """
        if y.factor == 0.0:
            raise ArithmeticError("a division by a constant zero")
        factor = constant(x.factor / y.factor).factor
        if factor == 0.0:
            return constant(0.0)
        return Number(factor, x.core if y.core == ONE else self.node("div", x.core, y.core))

    def power(self, x: Number, y: Number) -> Number:
        """xʸ; for small integers y as products."""
        if y.core != ONE and y.factor != 0.0:
            return Number(1.0, self.node("pow", self.plain(x), self.plain(y)))
        p = y.factor
        if p == 0.0:
            return constant(1.0)
        if x.core == ONE:
            return constant(_folded("pow", math.pow, x.factor, p))
        if abs(p) in (1.0, 2.0, 3.0, 4.0):
            square = self.multiply(x, x) if abs(p) > 1 else x
            result = {1.0: x, 2.0: square, 3.0: self.multiply(square, x), 4.0: self.multiply(square, square)}[abs(p)]
            return result if p > 0 else self.divide(constant(1.0), result)
        if p == 0.5:
            return self.function("sqrt", math.sqrt, x)
        return Number(1.0, self.node("pow", self.plain(x), self.plain(y)))

    def function(self, name: str, fold: Callable[..., float], *arguments: Number) -> Number:
        """A function of numbers.

        Args:
            name: an operation of `spon.constitutive.program`.
            fold: the same function of floats.
            arguments: of the function.
        """
        if all(x.core == ONE for x in arguments):
            return constant(_folded(name, fold, *(x.factor for x in arguments)))
        return Number(1.0, self.node(name, *map(self.plain, arguments)))

    # Conditions.

    def compare(self, name: str, x: Number, y: Number) -> Truth:
        """Comparison `name`: lt, le, eq or ne."""
        if x.core == ONE and y.core == ONE:
            return _COMPARE[name](x.factor, y.factor)
        return self.node(name, self.plain(x), self.plain(y))

    def both(self, a: Truth, b: Truth) -> Truth:
        """a and b."""
        if isinstance(a, bool) or isinstance(b, bool):
            constant, other = (a, b) if isinstance(a, bool) else (b, a)
            return other if constant else False
        return self.node("and", *sorted((a, b)))

    def either(self, a: Truth, b: Truth) -> Truth:
        """a or b."""
        return self.opposite(self.both(self.opposite(a), self.opposite(b)))

    def opposite(self, a: Truth) -> Truth:
        """not a."""
        if isinstance(a, bool):
            return not a
        return self.nodes[a][1] if self.nodes[a][0] == "not" else self.node("not", a)

    def select(self, condition: Truth, x: Number, y: Number) -> Number:
        """`x` where the condition holds, else `y`."""
        if isinstance(condition, bool):
            return x if condition else y
        return x if x == y else Number(1.0, self.node("select", condition, self.plain(x), self.plain(y)))

    def _branch(self, x: Number, i: int) -> Number:
        """Operand `i` of the `select` that is the core of `x`, times the factor."""
        branch = self._number(self.nodes[x.core][i])
        return Number(x.factor * branch.factor, branch.core)

    def _number(self, node: int) -> Number:
        key = self.nodes[node]
        return Number(key[1], key[2]) if key[0] == "scale" else Number(1.0, node)

    def _switch(self, node: int) -> bool:
        """Whether the node is one constant where a condition holds and another elsewhere, and one of them is zero."""
        key = self.nodes[node]
        if key[0] != "select":
            return False
        x, y = self._number(key[2]), self._number(key[3])
        return x.core == y.core == ONE and 0.0 in (x.factor, y.factor)

    # Sums of input components.

    def _linear(self, node: int) -> bool:
        return self.nodes[node][0] in ("input", "linear")

    def _terms(self, x: Number) -> dict[int, float]:
        key = self.nodes[x.core]
        return {x.core: x.factor} if key[0] == "input" else {k: x.factor * f for k, f in key[1]}

    def _sum(self, x: Number, y: Number) -> Number:
        terms = self._terms(x)
        for k, f in self._terms(y).items():
            g = terms.pop(k, 0.0)
            if not _cancels(f, g):
                terms[k] = f + g
        if not terms:
            return constant(0.0)
        (first, factor), *others = sorted(terms.items())
        if not others:
            return Number(factor, first)
        # 15 digits, so that sums that differ by rounding are one node.
        row = ((first, 1.0), *((k, float(f"{f / factor:.15g}")) for k, f in others))
        return Number(factor, self.node("linear", row))

    # The program.

    def program(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[Number], shape: Sequence[int]) -> Program:
        """The program of some outputs, without nodes that they do not use.

        Args:
            inputs: name and size of each.
            outputs: row by row.
            shape: of the output.
        """
        nodes = [self.plain(x) for x in outputs]
        return _Writer(self.nodes, nodes).program(inputs, nodes, shape)


def _cancels(a: float, b: float) -> bool:
    return abs(a + b) <= _ROUNDING * (abs(a) + abs(b))


def _folded(name: str, fold: Callable[..., float], *values: float) -> float:
    try:
        return fold(*values)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ArithmeticError(f"{name}{values} of constants: {error}") from None


def _operands(name: str, *rest: Any) -> tuple[int, ...]:
    """The operands of a node that are nodes."""
    if name in ("one", "input"):
        return ()
    if name == "linear":
        return tuple(k for k, _ in rest[0])
    return {"scale": rest[1:], "axpy": rest[:2]}.get(name, rest)


class _Writer:
    """Writes the nodes of outputs as the steps of a program, operands before the nodes that use them.

    A reference is ("input", k), ("constant", value) or ("step", k) until the number of constants is known.
    """

    def __init__(self, nodes: Sequence[tuple[Any, ...]], outputs: Sequence[int]):
        self.constants: dict[float, int] = {}
        self.steps: dict[tuple[Any, ...], int] = {}
        self.references: dict[int, Any] = {}
        needed = set(outputs)
        for k in range(len(nodes) - 1, -1, -1):
            if k in needed:
                needed.update(_operands(*nodes[k]))
        for k in sorted(needed):
            self.references[k] = self._write(*nodes[k])

    def constant(self, value: float) -> tuple[str, float]:
        self.constants.setdefault(value, len(self.constants))
        return "constant", value

    def step(self, *key: Any) -> tuple[str, int]:
        return "step", self.steps.setdefault(key, len(self.steps))

    def axpy(self, x: Any, y: Any, factor: float) -> tuple[str, int]:
        if factor in (1.0, -1.0):
            return self.step("add" if factor > 0 else "sub", x, y)
        return self.step("axpy", x, y, self.constant(factor))

    def _write(self, name: str, *rest: Any) -> tuple[str, Any]:
        values = [self.references[k] for k in _operands(name, *rest)]
        if name == "one":
            return self.constant(1.0)
        if name == "input":
            return "input", rest[0]
        if name == "scale":
            if rest[1] == ONE:
                return self.constant(rest[0])
            return self.step("neg", *values) if rest[0] == -1.0 else self.step("mul", *values, self.constant(rest[0]))
        if name == "linear":
            total = values[0]
            for value, (_, factor) in zip(values[1:], rest[0][1:]):
                total = self.axpy(total, value, factor)
            return total
        if name == "axpy":
            x, y = values
            return self.step("add", x, self.constant(rest[2])) if rest[1] == ONE else self.axpy(x, y, rest[2])
        return self.step(name, *values)

    def program(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[int], shape: Sequence[int]) -> Program:
        components = sum(size for _, size in inputs)
        first = {"input": 0, "constant": components, "step": components + len(self.constants)}

        def number(reference: tuple[str, Any]) -> int:
            kind, k = reference
            return first[kind] + (self.constants[k] if kind == "constant" else k)

        return Program(
            inputs=tuple(inputs),
            constants=tuple(self.constants),
            steps=tuple((name, *map(number, operands)) for name, *operands in self.steps),
            outputs=tuple(number(self.references[k]) for k in outputs),
            shape=tuple(shape),
        )
