# SPDX-License-Identifier: MIT
"""Properties of an operator network that hold exactly for any parameters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spon.operators.discretisation import Discretisation

Integral = float | str | None


@dataclass(frozen=True, slots=True)
class Structure:
    """Properties of the operator that hold exactly, beside the strong conditions of the output space.

    Args:
        linear_in: numbers of the inputs in which the prediction is linear, for any values of the others.
        integral: of each component of the prediction; None if it is free; "input" for that of the first input in the
            space of the prediction, which `spon.operators.rollout` then conserves. A sequence with one entry for each
            part if the output is mixed.
        increment: whether the network predicts an increment of the first input in the space of the prediction. The sum
            satisfies Dirichlet values, ties and integrals even if the input does not; to a velocity a curl is added.
        symmetric: whether the prediction is the derivative of a learned potential by the one input, which has the dofs
            of the output. Its Jacobian is a symmetric matrix, as that of the map from loads ∫ f φ_i to the dofs of a
            minimiser.
    """

    linear_in: Sequence[int] = ()
    integral: Integral | Sequence[Integral] = None
    increment: bool = False
    symmetric: bool = False

    def __post_init__(self):
        object.__setattr__(self, "linear_in", tuple(self.linear_in))
        if isinstance(self.integral, list | tuple):
            object.__setattr__(self, "integral", tuple(self.integral))

    def integrals(self, parts: int) -> tuple[Integral, ...]:
        """The integral of each part of the output.

        Raises:
            ValueError: another number of integrals than parts, or one that is no number, "input" or None.
        """
        given = self.integral if isinstance(self.integral, tuple) else (self.integral,)
        if self.integral is None:
            given = (None,) * parts
        if len(given) != parts:
            raise ValueError(f"integral = {self.integral}, need {parts}, one for each part of the output")
        if any(isinstance(value, str) and value != "input" for value in given):
            raise ValueError(f"integral = {self.integral!r}, need a number, 'input' or None")
        return given

    def to_json(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def check(self, discretisation: Discretisation) -> None:
        """Raise unless a network on these spaces can have this structure.

        Raises:
            ValueError: names the contradiction.
        """
        count, parts, same = len(discretisation.encoders), discretisation.parts, discretisation.same
        if not all(0 <= k < count for k in self.linear_in):
            raise ValueError(f"linear_in = {self.linear_in}, need numbers of inputs from 0 to {count - 1}")
        integrals = self.integrals(len(parts))
        continued = self.increment or "input" in integrals
        if continued and same is None:
            raise ValueError("increment and integral = 'input' need an input in the space of the prediction")
        self._check_linearity(discretisation, integrals, continued)
        constrained = any(value is not None for value in integrals)
        if constrained and discretisation.velocity is not None:
            raise ValueError("the integral of a curl is that of the potential's boundary values: leave integral out")
        for value, part in zip(integrals, parts):
            if value is not None and part.correction.shape[1] == 0:
                raise ValueError(f"integral = {self.integral}, but the Dirichlet values fix the integral")
        if self.symmetric:
            several = len(parts) > 1 or discretisation.velocity is not None
            if self.linear_in or constrained or self.increment or several:
                raise ValueError(
                    "a symmetric network has neither linear_in nor integral nor increment nor velocity nor mixed output"
                )
            sizes, dofs = [matrix.shape[1] for matrix in discretisation.encoders], discretisation.output.dofs
            if sizes != [dofs]:
                raise ValueError(f"a symmetric network has one input of {dofs} dofs as the output, not {sizes}")

    def _check_linearity(self, discretisation: Discretisation, integrals: Sequence[Integral], continued: bool) -> None:
        if not self.linear_in:
            return
        fixed = any(bool(part.lifting.any()) for part in discretisation.parts)
        if fixed or any(value not in (None, "input", 0.0) for value in integrals):
            raise ValueError(
                "linear_in needs Dirichlet values and integrals of zero: with those given the operator is affine"
            )
        same = discretisation.same
        if continued and same not in self.linear_in:
            raise ValueError(
                f"the prediction depends on input {same}, so that linear_in = {self.linear_in} needs {same} too"
            )


UNSTRUCTURED = Structure()
