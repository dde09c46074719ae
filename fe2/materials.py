# SPDX-License-Identifier: MIT
"""Materials, each defined by one UFL energy density (or stress) of its measure.

    measure                 the energy is a function of
    small strain            the full 3×3 strain tensor
    displacement gradient   the full 3×3 deformation gradient F
    gradient                the gradient (dim,) of a scalar, such as a temperature

Plane strain and plane stress are imposed where a material is evaluated. Residual, Jacobian, stress and tangent are
derivatives of this one definition. Moduli and stresses are in MPa (any consistent unit will do); strains are
dimensionless.

The energy may also depend on two kinds of internal variables:

- `state`: those of the last accepted step (plastic strain, ...). The energy is then the incremental potential of the
  step, and `update` gives the state at its end.
- `local`: unknowns that make the energy stationary at the point itself, for laws that are implicit in the strain.

`fe2.elasticity` and `fe2.plasticity` have materials of this kind.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fe2.measure import SMALL_STRAIN, Measure, measure_named
from fe2.state import StateLayout
from fe2.time_step import StepConstants

Expr = Any  # UFL expressions, which UFL itself does not type

# ‖e‖ = √(e:e + δ²) keeps derivatives finite at e = 0; with δ = 1e-15 it changes no strain above rounding.
_DELTA_SQUARED = 1e-30
# A deviator below this fraction of its strain is rounding, and counts as zero in a message.
_ZERO_DEVIATOR = 1e-15
# What a step gives to a material that depends on time.
_OF_A_STEP = ("dt", "time")


def norm(tensor: Expr) -> Expr:
    """Frobenius norm of a UFL tensor, differentiable at zero (regularised at 1e-15)."""
    return ufl.sqrt(ufl.inner(tensor, tensor) + _DELTA_SQUARED)


def why_not_finite(strains: npt.NDArray[np.float64], measure: Measure) -> str:
    """The likely cause of a stress or tangent that is not finite at some of the strains (n, d), for a message, or "".

    √(e:e) and most powers of it have a derivative that is 0/0 at e = 0, whether e is the strain or its deviator. At
    finite strain the logarithm of det F ≤ 0 does not exist.
    """
    if (lowest := measure.determinants(strains).min(initial=1.0)) <= 0:
        return f", or is not admitted: det F = {lowest:.3g} turns a point inside out"
    if measure is not SMALL_STRAIN:
        return ""
    deviators = strains.copy()
    normal = {3: 2, 6: 3}.get(strains.shape[1], 0)
    deviators[:, :normal] -= deviators[:, :normal].mean(axis=1, keepdims=True) if normal else 0.0
    size, deviatoric = np.linalg.norm(strains, axis=1), np.linalg.norm(deviators, axis=1)
    if (size == 0).any():
        zero = "zero strain"
    elif (deviatoric <= _ZERO_DEVIATOR * size).any():
        zero = "a strain with zero deviator"
    else:
        return ""
    return (
        f", at {zero}: the derivative of a root, norm or power of the strain, such as sqrt(inner(e, e)), is not "
        "defined there; add a small constant under the root, such as sqrt(inner(e, e) + 1e-30)"
    )


class Material:
    """The interface of a material to the solvers; derive from it or use `Energy` and `Stress`.

    Attributes:
        layout: fields of the state, which is kept from step to step.
        state_size: number of scalars of the state, without a layout.
        local_size: number of local unknowns that make the energy stationary.
        measure: what the material is given, see `fe2.measure`.
        symmetric: whether the stress derives from a potential, so that tangents are symmetric.
        rate_dependent: whether the response depends on the length of a step or on time.
        dt: length of the step, as UFL, in `energy`, `stress` and `update` of a material with `rate_dependent = True`.
        time: at the end of the step, likewise.
    """

    layout: StateLayout = StateLayout()
    state_size: int = 0
    local_size: int = 0
    symmetric: bool = True
    measure: Measure = SMALL_STRAIN
    rate_dependent: bool = False
    if TYPE_CHECKING:
        dt: Expr
        time: Expr
    else:

        def __getattr__(self, name):  # called for names that are not found, such as a step that nobody has bound
            if name in _OF_A_STEP:
                raise AttributeError(
                    f"{type(self).__name__}.{name} is known only during a step: use it in energy, stress or update, in "
                    f"a class with `rate_dependent = True` (this one has {self.rate_dependent}), and evaluate the "
                    "material by fe2.UFLLaw or fe2.RVE"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def energy(self, strain: Expr, state: Expr = None, local: Expr = None) -> Expr:
        """UFL energy density of the 3×3 strain, F, or gradient (dim,); None for a material given by its stress only."""
        return None

    def stress(self, strain: Expr, state: Expr = None, local: Expr = None) -> Expr:
        """UFL stress, (3, 3) or a flux (dim,); by default the derivative of the energy."""
        strain = ufl.variable(strain)
        return self.measure.part(ufl.diff(self.energy(strain, state, local), strain))

    def update(self, strain: Expr, state: Expr, local: Expr = None) -> list[Expr]:
        """UFL scalars (state_size) of the state at the end of a step that began with `state`."""
        return []

    def bind(self, mesh, step: StepConstants | None = None) -> "Material":
        """The same material with its numbers as `fem.Constant` on `mesh`, so that new values need no compilation.

        Args:
            mesh: of the constants.
            step: `dt` and `time` of a material that depends on time.

        Raises:
            ValueError: a material that depends on time has `dt` or `time` as a parameter.
        """
        bound = copy.copy(self)
        if self.rate_dependent and step is not None:
            for name in _OF_A_STEP:
                if hasattr(self, name):
                    raise ValueError(
                        f"{type(self).__name__} has `rate_dependent = True` and an attribute {name!r} of its own, but "
                        "this is the name of what a step gives: name the attribute otherwise"
                    )
                object.__setattr__(bound, name, getattr(step, name))
        for name in getattr(self, "__dataclass_fields__", {}):
            object.__setattr__(bound, name, _constant(mesh, getattr(self, name)))
        return bound


def _constant(mesh, value):
    if value is None or isinstance(value, (bool, str, Measure)) or callable(value):
        return value
    if isinstance(value, dict):
        return {k: _constant(mesh, v) for k, v in value.items()}
    return fem.Constant(mesh, np.asarray(value, dtype=np.float64))


def require_positive(material: Material, *names: str) -> None:
    """Raise ValueError unless these attributes of the material are positive."""
    for name in names:
        value = getattr(material, name)
        if not value > 0:
            raise ValueError(f"{type(material).__name__}: {name} = {value} must be positive")


@dataclass(frozen=True, eq=False)
class Energy(Material):
    """A user's material, from its energy density.

    Args:
        density: function (strain, **parameters) → UFL scalar [MPa] of the 3×3 strain, of the 3×3 deformation gradient
            F, or of the gradient (dim,) of a scalar. It may vary in space, through `ufl.SpatialCoordinate` of the RVE's
            mesh.
        parameters: its keyword arguments; new values need no compilation.
        measure: "small strain", "displacement gradient" (of F) or "gradient".

    Example:
        Energy(lambda e, K, G: K / 2 * tr(e)**2 + G * inner(dev(e), dev(e)), parameters={"K": 4.0, "G": 1.0})
        Energy(lambda F: inner(F, F) / 2 - ln(det(F)) + ln(det(F))**2, measure="displacement gradient")

    Raises:
        ValueError: another measure.
    """

    density: Callable[..., Expr]
    parameters: dict[str, Any] | None = None
    measure: Measure | str = SMALL_STRAIN  # type: ignore[assignment]

    def __post_init__(self):
        object.__setattr__(self, "measure", measure_named(self.measure))

    def energy(self, strain, state=None, local=None):
        return self.density(strain, **(self.parameters or {}))


@dataclass(frozen=True, eq=False)
class Stress(Material):
    """A user's material, from its stress; its tangent need not be symmetric.

    Args:
        function: function (strain, **parameters) → UFL 3×3 stress [MPa] of the 3×3 strain; of F, the first
            Piola–Kirchhoff stress; of a gradient (dim,), the flux (dim,), positive along the gradient.
        parameters: its keyword arguments; new values need no compilation.
        measure: as for `Energy`.

    Raises:
        ValueError: another measure.
    """

    function: Callable[..., Expr]
    parameters: dict[str, Any] | None = None
    measure: Measure | str = SMALL_STRAIN  # type: ignore[assignment]
    symmetric = False

    def __post_init__(self):
        object.__setattr__(self, "measure", measure_named(self.measure))

    def stress(self, strain, state=None, local=None):
        return self.function(strain, **(self.parameters or {}))
