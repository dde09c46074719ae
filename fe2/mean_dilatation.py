# SPDX-License-Identifier: MIT
"""Elements that do not lock in nearly incompressible materials: the dilatation of each cell is projected.

A stiff resistance to changes of volume at every quadrature point leaves low-order elements too few ways to deform. Here
the material is given the strain with the mean dilatation θ of the cell instead,

    small strain            ε̄ = ε + (θ − tr ε)/n I,      θ = Π tr ε
    displacement gradient   F̄ = (θ/J)^(1/n) F,           θ = Π J,  J = det F

where Π is the L² projection, cell by cell in the reference configuration, on the polynomials of degree p − 1
(quadrilaterals, hexahedra) or p − 2 (simplices) in the coordinates, for displacements of degree p. The number n of
dimensions is that of the mesh, so that the thickness keeps its stretch in plane strain. θ is a function of u alone and
the energy ∫ W(ε̄) one of u alone: the element is the displacement form of a three-field mixed one, whose dilatation and
pressure are eliminated in each cell (Simo, Taylor & Pister, Comput. Methods Appl. Mech. Eng. 51, 1985, 177–208), at
small strain B-bar (Hughes, Int. J. Numer. Methods Eng. 15, 1980, 1413–1418). The polynomials are those of the
coordinates x, not of the reference cell, which keeps the order on distorted quadrilaterals (Boffi & Gastaldi, Numer.
Math. 92, 2002, 421–438, on mapped and unmapped Q2-P1).

With S the stress at ε̄ and the pressure p = Π (S : ∂ε̄/∂θ), the internal forces are

    R(v) = ∫ S : ∂ε̄/∂u[v] + p ∂J/∂u[v]

and their linearisation adds products of small matrices of a cell to that at fixed θ and p, in the sparsity of the plain
element.

At finite strain Newton's method in u alone would converge only from within some μ/K of the solution: a step s changes J
by s² more than it intends, and the pressure, K s², stiffens or softens the next tangent. In the method for the
three-field functional all of u, θ and p follow their tangents. For p = K (θ − 1) its steps in u are those with the
present forces R(u), but with the stiffness at the values of θ and p that the last step intended: those at its beginning
and their derivative along it, `MeanDilatation.ahead`. Other pressures differ by a term of higher order.
"""

from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import ufl
from dolfinx import fem
from ufl.algorithms import expand_derivatives

from fe2.measure import Measure

Array = npt.NDArray[np.float64]

ELEMENTS = ("displacement", "mean dilatation")

# Largest number of values of cell matrices at a time.
_VALUES = 2**23


def need_element(element: str, mesh, degree: int, measure: Measure, plane: str) -> None:
    """Check that there is a mean dilatation if it is asked for.

    Args:
        element: one of `ELEMENTS`.
        mesh: of the displacement.
        degree: of the displacement.
        measure: of the materials.
        plane: "strain" or "stress".

    Raises:
        ValueError: another name, the gradient of a scalar, plane stress, or a degree without such an element.
    """
    if element not in ELEMENTS:
        raise ValueError(f"element = {element!r}: need one of {', '.join(map(repr, ELEMENTS))}")
    if element == "displacement":
        return
    given = f"element = {element!r}"
    if measure.scalar:
        raise ValueError(f"{given}: the gradient of a scalar has no dilatation; leave out `element`")
    if mesh.topology.dim == 2 and plane == "stress":
        raise ValueError(f"{given}: plane stress does not lock, as the thickness is free; leave out `element`")
    name = mesh.basix_cell().name
    if degree == 1 and name in ("triangle", "tetrahedron"):
        raise ValueError(
            f"{given}: the dilatation is constant in a {name} of degree 1 already, which locks with it; use degree=2, "
            "or quadrilaterals or hexahedra"
        )
    if degree > 2:
        raise ValueError(f"{given} is of degree 1 or 2, not {degree}")


class MeanDilatation:
    """The mean dilatation of a displacement, and the forces and the stiffness that follow from it.

    Args:
        u: the displacement.
        measure: of the materials, small strain or displacement gradient.
        points: quadrature points of the reference cell.
        weights: (cells, points) [length^dim].
        dx: UFL measure with this quadrature.
        symmetric: whether all stresses derive from potentials.

    Attributes:
        strain: UFL tensor (dim, dim) that the materials are given, ε̄ or F̄ − I.
        theta: UFL dilatation θ of the cell.
    """

    def __init__(self, u: fem.Function, measure: Measure, points, weights: Array, dx, symmetric: bool):
        V = u.function_space
        self._u, self._measure, self._weights, self._symmetric = u, measure, weights, symmetric
        self._mesh = mesh = V.mesh
        self._dim = n = mesh.topology.dim
        linear = V.element.basix_element.degree == 2 and mesh.basix_cell().name in ("quadrilateral", "hexahedron")
        self._nodes = V.dofmap.list[: len(weights)]

        # The polynomials: 1 and (x − c)/h, with the middle c and the size h of the cell.
        x = fem.Expression(ufl.SpatialCoordinate(mesh), points)
        x = x.eval(mesh, np.arange(len(weights), dtype=np.int32)).reshape(*weights.shape, n)
        centre = np.einsum("cq,cqi->ci", weights, x) / weights.sum(axis=1)[:, None]
        size = abs(x - centre[:, None]).max(axis=(1, 2))
        self._at_points = np.ones((*weights.shape, 1))
        basis = [ufl.as_ufl(1.0)]
        self._geometry: set[Any] = set()
        if linear:
            middle, scale = self._constants((n,)), self._constants((1,))
            self._geometry = {middle, scale}
            self._set(middle, centre)
            self._set(scale, 1 / size[:, None])
            basis += [(ufl.SpatialCoordinate(mesh)[i] - middle[i]) * scale[0] for i in range(n)]
            scaled = (x - centre[:, None]) / size[:, None, None]
            self._at_points = np.concatenate([self._at_points, scaled], axis=2)
        self._m = m = len(basis)
        self._basis = ufl.as_vector(basis)
        gram = np.einsum("cq,cqk,cql->ckl", weights, self._at_points, self._at_points)
        self._inverse = np.linalg.inv(gram)

        self._mean, self._pressure = self._constants((m,)), self._constants((m,))
        self._one = fem.Constant(mesh, np.zeros(m))  # a unit vector, to choose a polynomial
        self.theta = ufl.dot(self._mean, self._basis)
        gradient, identity = ufl.grad(u), ufl.Identity(n)
        if measure.finite:
            self._dilatation = measure.orientation(gradient)
            barred = (self.theta / self._dilatation) ** (1 / n) * (identity + gradient)
            self.strain, self._by_theta = barred - identity, barred / (n * self.theta)
        else:
            self._dilatation = ufl.tr(gradient)
            self.strain = measure.part(gradient) + (self.theta - self._dilatation) / n * identity
            self._by_theta = identity / n

        # Vectors over the nodes of each cell, and over its polynomials.
        degree = V.element.basix_element.degree
        element = basix.ufl.element("Lagrange", mesh.basix_cell(), degree, shape=(n,), discontinuous=True)
        self._broken = fem.functionspace(mesh, element)
        self._v, self._q = ufl.TestFunction(self._broken), ufl.TestFunction(self._mean.function_space)
        self._integral = fem.form(self._dilatation * ufl.dot(self._basis, self._q) * dx)
        self._by_u = fem.form(ufl.derivative(self._dilatation, u, self._v) * ufl.dot(self._basis, self._one) * dx)
        self._known: Array | None = None
        # A direction in u and that of θ: derivatives along it.
        self._along, self._along_mean = fem.Function(V), self._constants((m,))
        along = ufl.derivative(self._dilatation, u, self._along)
        self._intended = fem.form(along * ufl.dot(self._basis, self._q) * dx) if measure.finite else None
        self._changes: list[Any] = []
        self._stress_integrals: list[Any] = []
        # Of linear phases and of the others: dR/dθ, dg/du, dg/dθ.
        self._parts: dict[bool, list[list[Any]]] = {True: [], False: []}

    def _constants(self, shape: tuple[int, ...]) -> fem.Function:
        """A function that is constant in each cell."""
        return fem.Function(fem.functionspace(self._mesh, ("DG", 0, shape)))

    def _rows(self, function: fem.Function, values: Array | None = None) -> Array:
        """Values (cells, size) of such a function, or of the vector `values` (dofs,) of its space."""
        V = function.function_space
        values = function.x.array if values is None else values
        return values.reshape(-1, V.dofmap.index_map_bs)[V.dofmap.list[: len(self._weights), 0]]

    def _set(self, function: fem.Function, rows: Array) -> None:
        V = function.function_space
        function.x.array.reshape(-1, V.dofmap.index_map_bs)[V.dofmap.list[: len(self._weights), 0]] = rows

    # The forms of the body.

    def forms(self, phase, u, v, du, dx):
        """UFL internal virtual work of a phase and its linearisation at fixed θ and p; the rest is kept.

        Args:
            phase: its material at `strain`.
            u: the displacement.
            v: test function.
            du: trial function.
            dx: its cells.
        """

        def forces(v):
            change = ufl.derivative(self.strain, u, v)
            pressure = ufl.dot(self._pressure, self._basis) * ufl.derivative(self._dilatation, u, v)
            return ufl.inner(phase.stress, self._measure.embedded(change)) + pressure

        def conjugate(q):
            return ufl.inner(phase.stress, self._measure.embedded(self._by_theta)) * ufl.dot(self._basis, q)

        work, cells, one = forces(v), forces(self._v), conjugate(self._one)
        stiffness = phase.derivative(work, u, du) * dx
        rest = [
            phase.derivative(cells, self._mean, self._one) * dx,
            phase.derivative(one, u, self._v) * dx,
            phase.derivative(conjugate(self._q), self._mean, self._one) * dx,
        ]
        self._stress_integrals.append(conjugate(self._q) * dx)
        if self._measure.finite:
            pairs = (u, self._along), (self._mean, self._along_mean)
            self._changes += [phase.derivative(conjugate(self._q), *pair) * dx for pair in pairs]
        used = {c for form in (stiffness, *rest) for c in expand_derivatives(form).coefficients()}
        constant = not (used - self._geometry or self._measure.finite or phase.rate_dependent)
        self._parts[constant].append(rest)
        return work * dx, stiffness

    def finish(self, matrix) -> None:
        """Compile, after the last phase.

        Args:
            matrix: DOLFINx's, with the sparsity of the stiffness.
        """
        self._conjugate = fem.form(sum(self._stress_integrals))
        self._change = fem.form(sum(self._changes)) if self._changes else None
        self._compiled = {
            linear: [fem.form(sum(forms)) for forms in zip(*parts, strict=True)] if parts else None
            for linear, parts in self._parts.items()
        }
        self._fixed = None if self._measure.finite else self._gradient()
        # The position of each pair of nodes of each cell in the blocks of the matrix, some cells at a time.
        count, per_cell = self._nodes.shape
        rows = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
        keys = rows * len(rows) + matrix.indices
        order = np.argsort(keys)
        some = max(1, _VALUES // (per_cell * self._dim) ** 2)
        self._slots = []
        for start in range(0, count, some):
            nodes = self._nodes[start : start + some].astype(np.int64)
            pairs = nodes[:, :, None] * len(rows) + nodes[:, None, :]
            slots, at = np.unique(order[np.searchsorted(keys[order], pairs.ravel())], return_inverse=True)
            shape = (slots.size, at.size)
            gather = scipy.sparse.csr_array((np.ones(at.size), (at.ravel(), np.arange(at.size))), shape=shape)
            self._slots.append((slice(start, start + len(nodes)), slots, gather))
        self._constant = np.zeros((len(matrix.indices), self._dim, self._dim))
        if self._compiled[True] is not None:
            self._add(self._constant, self._compiled[True], self._gradient())

    # Values at the present displacement.

    def update(self) -> None:
        """Set θ to that of the present displacement."""
        if self._known is None or not np.array_equal(self._known, self._u.x.array):
            self._set(self._mean, self._project(self._integral))
            self._known = self._u.x.array.copy()

    def balance(self) -> None:
        """Set the pressure p to that of the present displacement and local unknowns."""
        self.update()
        self._set(self._pressure, self._project(self._conjugate))

    def values(self) -> Array:
        """θ and p (2, cells, polynomials) of the present displacement and local unknowns."""
        self.balance()
        return np.stack([self._rows(self._mean), self._rows(self._pressure)])

    def ahead(self, direction: Array) -> Array:
        """Derivatives of `values` along a displacement (dofs,), at finite strain; local unknowns must be found."""
        self.balance()
        self._along.x.array[:] = direction
        theta = self._project(self._intended)
        self._set(self._along_mean, theta)
        return np.stack([theta, self._project(self._change)])

    def hold(self, values: Array) -> None:
        """Take these `values` for θ and p until the next `update` or `balance`."""
        self._set(self._mean, values[0])
        self._set(self._pressure, values[1])
        self._known = None

    def _project(self, integral) -> Array:
        b = np.zeros(self._mean.x.array.size)
        fem.assemble_vector(b, integral)
        return np.asarray(np.einsum("ckl,cl->ck", self._inverse, self._rows(self._mean, b)))

    def _gradient(self) -> Array:
        """dθ/du (cells, polynomials, nodes · dim) of the coefficients of θ."""
        return np.asarray(self._inverse @ self._over_nodes(self._by_u))

    def _each(self, form, size: int) -> Array:
        """Vectors (polynomials, size) of `form` with each polynomial in the place of `_one`."""
        found = np.zeros((self._m, size))
        for k, row in enumerate(found):
            self._one.value[:] = np.eye(self._m)[k]
            fem.assemble_vector(row, form)
        return found

    def _over_nodes(self, form) -> Array:
        dofs = self._broken.dofmap.list[: len(self._weights)]
        found = self._each(form, self._broken.dofmap.index_map.size_local * self._dim)
        return np.moveaxis(found.reshape(self._m, -1, self._dim)[:, dofs], 0, 1).reshape(len(dofs), self._m, -1)

    def add_stiffness(self, data: Array, only: npt.NDArray[np.int32] | None = None) -> None:
        """Add what θ and p contribute to the stiffness.

        Args:
            data: blocks (blocks, dim, dim) of the matrix, added to in place.
            only: cells whose contribution alone is added.
        """
        varying = self._compiled[False]
        if only is None:
            data += self._constant
        gradient = self._gradient() if self._fixed is None else self._fixed
        for forms in (varying, self._compiled[True] if only is not None else None):
            if forms is not None:
                self._add(data, forms, gradient, only)

    def _add(self, data: Array, forms, gradient: Array, only: npt.NDArray[np.int32] | None = None) -> None:
        # With θ' = dθ/du: dR/dθ θ' + θ'ᵀ (dg/du + dg/dθ θ'); for potentials dR/dθ is the transpose of dg/du.
        by_theta = None if self._symmetric else self._over_nodes(forms[0])
        by_u = self._over_nodes(forms[1])
        second = self._each(forms[2], self._mean.x.array.size)
        second = np.stack([self._rows(self._mean, row) for row in second], axis=2)
        if only is not None:
            kept = np.zeros(len(gradient))
            kept[only] = 1.0
            gradient = gradient * kept[:, None, None]
        for cells, slots, gather in self._slots:
            g = gradient[cells]
            if by_theta is None:
                half = g.swapaxes(1, 2) @ (by_u[cells] + second[cells] @ g / 2)
                local = half + half.swapaxes(1, 2)
            else:
                local = by_theta[cells].swapaxes(1, 2) @ g + g.swapaxes(1, 2) @ (by_u[cells] + second[cells] @ g)
            nodes = self._nodes.shape[1]
            blocks = local.reshape(-1, nodes, self._dim, nodes, self._dim).swapaxes(2, 3)
            data[slots] += (gather @ blocks.reshape(-1, self._dim**2)).reshape(-1, self._dim, self._dim)

    # For results.

    def stress(self, stress):
        """UFL stress (dim, dim) that is conjugate to the strain of the displacement itself, with p up to date.

        At finite strain it is r P̄ + (p − P̄ : F̄/(n J)) J F^(−T), r = (θ/J)^(1/n), of which the internal forces are the
        divergence, so that its mean is the stress of the RVE. The stress P̄ = P(F̄) of the material differs from it
        as F̄ from F. At small strain the means of both agree, and it is the stress of the material.

        Args:
            stress: UFL stress (3, 3) of a material at `strain`.
        """
        n = self._dim
        stress = ufl.as_tensor([[stress[i, j] for j in range(n)] for i in range(n)])
        if not self._measure.finite:
            return stress
        j, f = self._dilatation, ufl.Identity(n) + ufl.grad(self._u)
        p = ufl.dot(self._pressure, self._basis)
        mean = ufl.inner(stress, self.strain + ufl.Identity(n)) / n
        return (self.theta / j) ** (1 / n) * stress + (j * p - mean) * ufl.inv(f).T

    def operator(self) -> scipy.sparse.csr_matrix:
        """θ (cells · points, dofs) at the quadrature points, which is linear in the displacement at small strain.

        Raises:
            ValueError: at finite strain.
        """
        if self._fixed is None:
            raise ValueError("the mean dilatation at finite strain is not linear in the displacement")
        values = self._at_points @ self._fixed  # (cells, points, nodes · dim)
        dofs = (self._nodes[:, :, None] * self._dim + np.arange(self._dim)).reshape(len(values), 1, -1)
        rows = np.arange(values[..., 0].size).reshape(*values.shape[:2], 1)
        where = [np.broadcast_to(index, values.shape).ravel() for index in (rows, dofs)]
        shape = (values[..., 0].size, self._u.x.array.size)
        return scipy.sparse.csr_matrix((values.ravel(), where), shape=shape)
