# SPDX-License-Identifier: MIT
"""Measures: what a material point is given of a field, and the stress that it returns.

Every measure is a linear function of the gradient of a field, so that one object serves the material, the RVE and the
macroscale. With the orthonormal gradients B_k (components, dim) of a measure, the strain of a field u has the
components E_k = B_k : ∇u, the field of the uniform strain E is u(x) = Σ_k E_k B_k x, and the stress S obeys
S · dE = dW for the energy density W.

    small strain            sym ∇u → Cauchy stress, as Mandel vectors
    displacement gradient   H = ∇u = F − I → first Piola–Kirchhoff stress P, row by row, in the reference configuration
    gradient                ∇T of a scalar → k ∇T for conductivity k, which is minus the heat flux

Zero is the undeformed state in all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import ufl

from fe2 import mandel

Array = npt.NDArray[np.float64]
Expr = Any  # UFL expressions, which UFL itself does not type

_AXES = "xyz"


@dataclass(frozen=True, slots=True)
class Measure:
    """What a point is given of a field and what it returns; see the head of this module.

    Attributes:
        name: "small strain", "displacement gradient" or "gradient".
        strain: name of the strain in messages and files.
        stress: name of the stress there.
        field: the field.
        scalar: whether the field is a scalar.
        finite: whether rotations are finite: materials are given F = I + H, energies are functions of FᵀF, and det F is
            positive.
        basis: dim → B (d, components, dim), orthonormal gradients.
        part: UFL gradient (dim, dim) or (dim,) → the part of it that is the strain.
        vector: UFL tensor of that shape → UFL vector (d,).
        tensor: UFL vector (d,) → UFL tensor.
    """

    name: str
    strain: str
    stress: str
    field: str
    scalar: bool
    finite: bool
    basis: Callable[[int], Array]
    part: Callable[[Expr], Expr]
    vector: Callable[[Expr], Expr]
    tensor: Callable[[Expr], Expr]

    @property
    def component_names(self) -> str:
        """What the numbers of a strain are, for messages."""
        if self.finite:
            return "components of H = F − I, row by row"
        return "components of a gradient" if self.scalar else "Mandel components"

    def components(self, dim: int) -> int:
        """Components of the field, 1 or `dim`."""
        return 1 if self.scalar else dim

    def size(self, dim: int) -> int:
        """d, the number of components of the strain, in `dim` dimensions."""
        return len(self.basis(dim))

    def dimension(self, n: int) -> int:
        """Space dimension whose strains have `n` components; raises ValueError if there is none."""
        for dim in (2, 3, 1):
            if self.size(dim) == n:
                return dim
        raise ValueError(f"a {self.strain} has {self.size(2)} or {self.size(3)} components, not {n}")

    def of(self, field: Expr) -> Expr:
        """UFL strain (d,) of a field, also of a test function."""
        return self.vector(self.part(ufl.grad(field)))

    def tensors(self, rows: npt.ArrayLike) -> Array:
        """Tensors (..., dim, dim), or vectors (..., 1, dim) of a scalar field, of strains or stresses (..., d)."""
        rows = np.asarray(rows, dtype=np.float64)
        return np.einsum("...k,kij->...ij", rows, self.basis(self.dimension(rows.shape[-1])))

    def columns(self, stress: Array, strain: Array) -> dict[str, Array]:
        """Components by name, such as "stress_xy" (n,), for files.

        In two dimensions those in the plane only: zeros would suggest that σ_zz vanishes.

        Args:
            stress: (n, d).
            strain: (n, d).
        """
        found: dict[str, Array] = {}
        for name, tensors in ((self.stress, self.tensors(stress)), (self.strain, self.tensors(strain))):
            components, dim = tensors.shape[-2:]
            for i in range(components):
                for j in range(0 if self.finite or self.scalar else i, dim):
                    axes = _AXES[j] if self.scalar else _AXES[i] + _AXES[j]
                    found[f"{name.replace(' ', '_')}_{axes}"] = tensors[:, i, j]
        return found

    def stretches(self, dim: int) -> Array:
        """Orthonormal strains (s, d) that span those without rotation: laws at finite strain depend on FᵀF alone."""
        if not self.finite:
            return np.eye(self.size(dim))
        return mandel.basis(dim).reshape(-1, dim * dim)

    def determinants(self, strains: Array) -> Array:
        """det F (n,) of strains (n, d); 1 at small strain, and for the gradient of a scalar."""
        if not self.finite:
            return np.ones(len(strains))
        with np.errstate(invalid="ignore"):  # NaN of NaN
            found: Array = np.linalg.det(np.eye(self.dimension(strains.shape[1])) + self.tensors(strains))
        return found

    def argument(self, tensor: Expr, thickness: Expr = 0) -> Expr:
        """UFL argument of a material: the 3×3 strain, the 3×3 deformation gradient F, or the gradient (dim,).

        Args:
            tensor: UFL, `part` of a gradient.
            thickness: strain through the thickness in two dimensions; at finite strain the logarithmic one, ln F₃₃.
        """
        full = self.embedded(tensor, ufl.exp(thickness) - 1 if self.finite and thickness != 0 else thickness)
        return ufl.Identity(3) + full if self.finite else full

    def through(self, stress: Expr, argument: Expr) -> Expr:
        """UFL scalar of a material's 3×3 stress and argument that vanishes with the stress through the thickness.

        At finite strain P₃₃ F₃₃, whose root in ln F₃₃ Newton's method finds from afar: for a neo-Hookean solid it is
        convex.
        """
        return stress[2, 2] * argument[2, 2] if self.finite else stress[2, 2]

    def embedded(self, tensor: Expr, thickness: Expr = 0) -> Expr:
        """UFL 3×3 tensor of a 2×2 or 3×3 one; the gradient of a scalar as it is."""
        if tensor.ufl_shape in ((3, 3), (2,), (3,)):
            return tensor
        return ufl.as_tensor([[tensor[0, 0], tensor[0, 1], 0], [tensor[1, 0], tensor[1, 1], 0], [0, 0, thickness]])

    def components_of(self, stress: Expr, dim: int) -> Expr:
        """UFL vector (d,) of the stress that a material returns, in the plane in two dimensions."""
        if self.scalar:
            return self.vector(stress)
        return self.vector(ufl.as_tensor([[stress[i, j] for j in range(dim)] for i in range(dim)]))

    def orientation(self, tensor: Expr) -> Expr:
        """UFL det F of the displacement gradient (dim, dim)."""
        return ufl.det(ufl.Identity(tensor.ufl_shape[0]) + tensor)


def between(first: Array, last: Array, fraction: float, measure: Measure) -> Array:
    """A strain (d,) on the way from one to another: on a straight line, but rotations by equal angles.

    With F = R U the stretch U and the rotation vector of R are interpolated. A straight line between F and a rotated F
    would pass through compression, by which an RVE may buckle.

    Args:
        first: (d,).
        last: (d,).
        fraction: of the way.
        measure: of both.
    """
    straight: Array = first + (last - first) * fraction
    if not measure.finite:
        return straight
    dim = measure.dimension(len(first))
    f = np.tile(np.eye(3), (2, 1, 1))
    f[:, :dim, :dim] += measure.tensors(np.stack([first, last]))
    if not (np.linalg.det(f) > 0).all():
        return straight
    (r0, u0), (r1, u1) = (scipy.linalg.polar(one) for one in f)
    rotation = scipy.spatial.transform.Rotation
    turn = rotation.from_rotvec(fraction * rotation.from_matrix(r0.T @ r1).as_rotvec()).as_matrix()
    middle = r0 @ turn @ (u0 + (u1 - u0) * fraction) - np.eye(3)
    return np.einsum("kij,ij->k", measure.basis(dim), middle[:dim, :dim])


def _rows(dim: int) -> Array:
    return np.eye(dim * dim).reshape(-1, dim, dim)


def _axes(dim: int) -> Array:
    return np.eye(dim).reshape(dim, 1, dim)


def _all(gradient: Expr) -> Expr:
    return gradient


def _row_by_row(tensor: Expr) -> Expr:
    return ufl.as_vector([tensor[i, j] for i in range(tensor.ufl_shape[0]) for j in range(tensor.ufl_shape[1])])


def _matrix(vector: Expr) -> Expr:
    dim = DISPLACEMENT_GRADIENT.dimension(vector.ufl_shape[0])
    return ufl.as_tensor([[vector[dim * i + j] for j in range(dim)] for i in range(dim)])


# The small strain sym ∇u, to the Cauchy stress, as Mandel vectors.
SMALL_STRAIN = Measure(
    name="small strain",
    strain="strain",
    stress="stress",
    field="displacement",
    scalar=False,
    finite=False,
    basis=mandel.basis,
    part=ufl.sym,
    vector=mandel.ufl_vector,
    tensor=mandel.ufl_tensor,
)
# The displacement gradient H = F − I, to the first Piola–Kirchhoff stress, row by row.
DISPLACEMENT_GRADIENT = Measure(
    name="displacement gradient",
    strain="displacement gradient",
    stress="stress",
    field="displacement",
    scalar=False,
    finite=True,
    basis=_rows,
    part=_all,
    vector=_row_by_row,
    tensor=_matrix,
)
# The gradient of a scalar, to the flux along it.
GRADIENT = Measure(
    name="gradient",
    strain="gradient",
    stress="flux",
    field="potential",
    scalar=True,
    finite=False,
    basis=_axes,
    part=_all,
    vector=_all,
    tensor=_all,
)

MEASURES = {measure.name: measure for measure in (SMALL_STRAIN, DISPLACEMENT_GRADIENT, GRADIENT)}


def measure_named(measure: str | Measure) -> Measure:
    """The measure of a name.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(measure, Measure):
        return measure
    if measure not in MEASURES:
        raise ValueError(f"measure = {measure!r}: need one of {', '.join(map(repr, MEASURES))}")
    return MEASURES[measure]


def measure_of(law: Any) -> Measure:
    """The measure of a law or a model; a law that names none takes small strains."""
    return measure_named(getattr(law, "measure", SMALL_STRAIN))


def common_measure(owners: Mapping[Any, Any]) -> Measure:
    """The one measure of all materials or laws.

    Args:
        owners: name of a phase → its material or law.

    Raises:
        ValueError: different measures; names a phase of each.
    """
    found = {measure_of(owner): f"{type(owner).__name__} of {name}" for name, owner in owners.items()}
    if len(found) > 1:
        listed = ", ".join(f"{measure.name} ({who})" for measure, who in found.items())
        raise ValueError(f"all phases must have the same measure, and have {listed}")
    return next(iter(found))
