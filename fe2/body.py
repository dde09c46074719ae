# SPDX-License-Identifier: MIT
"""A meshed body of several materials: internal forces, stiffness, energy and stress of a given displacement.

All of them are on the full displacement space, without boundary conditions.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used
import ufl
from dolfinx import fem
from dolfinx.mesh import meshtags
from ufl.algorithms import expand_derivatives

import meshes
from fe2.expressions import compile_expression
from fe2.local_newton import ITERATIONS, newton_local
from fe2.material_phase import Phase
from fe2.materials import Material
from fe2.mean_dilatation import MeanDilatation, need_element
from fe2.measure import common_measure
from fe2.phases import materials_by_tag
from fe2.time_step import StepConstants, TimeStep, require_step
from meshes.compat import coordinate_map
from meshes.tags import phase_label

Array = npt.NDArray[np.float64]


class LocalError(RuntimeError):
    """Local unknowns of a material that do not converge at some quadrature point."""


def quadrature_degree(mesh, degree: int) -> int:
    """Degree of the quadrature: p+1 Gauss points a direction on quadrilaterals and hexahedra, as needed on simplices.

    On simplices the stiffness of a linear material is integrated exactly on straight cells, 2(p−1). On curved ones with
    a map of degree g, a constant stress does exact work, (dim−1)(g−1) + p−1 from the cofactors of the map's gradient,
    and volumes are exact, dim(g−1): affine displacements keep giving the exact mean stress.
    """
    dim, p, g = mesh.topology.dim, degree, coordinate_map(mesh).degree
    if mesh.basix_cell().name in ("interval", "triangle", "tetrahedron"):
        return max(2 * (p - 1), (dim - 1) * (g - 1) + p - 1, dim * (g - 1))
    return 2 * p + 1


class Body:
    """Internal forces R(u), stiffness K(u) = dR/du, energy and stress of a body under the displacement `u`.

    Args:
        domain: mesh and cell tags (a `meshes.TaggedMesh`).
        materials: tag, or name in `domain.names` → material.
        degree: polynomial degree of the displacement.
        plane: "strain" or "stress"; two-dimensional meshes only.
        element: "displacement", or "mean dilatation" for nearly incompressible materials, see `fe2.mean_dilatation`.

    Attributes:
        materials: tag → material, by ascending tag.
        measure: of all materials.
        plane: as given.
        element: as given.
        dilatation: the mean dilatation, or None.
        V: space of the displacement, or of the potential whose gradient the materials take.
        u: the displacement, at which everything is evaluated.
        memory_size: size of the memory of the materials in the whole body.
        rate_dependent: whether some material depends on time; everything but strains is then NaN before `set_step`.
        points: quadrature points of the reference cell.
        weights: (cells, points) [length^dim], summing to the volume.

    Raises:
        ValueError: unknown `plane`, a geometry of higher degree than the displacement, materials of different measures,
            plane stress for the gradient of a scalar, or an element that does not exist, see
            `fe2.mean_dilatation.need_element`.
        meshes.MeshError: a tag without material, a material without tag, or an unknown name.
        TypeError: another kind of mesh or material.
    """

    def __init__(
        self,
        domain: meshes.TaggedMesh,
        materials: meshes.ByPhase[Material],
        *,
        degree: int = 2,
        plane: str = "strain",
        element: str = "displacement",
    ):
        if plane not in ("strain", "stress"):
            raise ValueError(f"plane = {plane!r}: need 'strain' or 'stress'")
        meshes.need_tagged_mesh(domain, "domain")
        materials = materials_by_tag(materials, domain.names)
        meshes.check_materials(domain, materials)
        self.mesh = mesh = domain.mesh
        self.dim = mesh.geometry.dim
        self.materials = dict(sorted(materials.items()))
        self.measure = common_measure({phase_label(t, domain.names): m for t, m in self.materials.items()})
        self.plane = plane
        if self.measure.scalar and plane == "stress":
            raise ValueError("plane = 'stress': the gradient of a scalar has no plane stress; leave out `plane`")
        if coordinate_map(mesh).degree > degree:
            raise ValueError(
                f"the mesh has geometry of degree {coordinate_map(mesh).degree}, the displacement degree {degree}: "
                "affine fields are not in such a space; raise the degree or make the mesh of lower order"
            )
        need_element(element, mesh, degree, self.measure, plane)
        self.element = element
        self.symmetric = all(m.symmetric for m in materials.values())
        self.rate_dependent = any(m.rate_dependent for m in materials.values())
        self._step = StepConstants(mesh) if self.rate_dependent else None
        self.V = fem.functionspace(mesh, ("Lagrange", degree, () if self.measure.scalar else (self.dim,)))
        self.u = fem.Function(self.V, name=self.measure.field)
        q = quadrature_degree(mesh, degree)
        self.points, weights = basix.make_quadrature(mesh.basix_cell(), q)
        self.cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        jacobian = fem.Expression(ufl.JacobianDeterminant(mesh), self.points)
        self.weights = abs(jacobian.eval(mesh, self.cells).reshape(len(self.cells), -1)) * weights
        dx = ufl.Measure("dx", domain=mesh, subdomain_data=domain.cell_tags, metadata={"quadrature_degree": q})
        plane_of_mesh = plane if self.dim == 2 and not self.measure.scalar else None
        v, du = ufl.TestFunction(self.V), ufl.TrialFunction(self.V)
        self.dilatation: MeanDilatation | None = None
        if element == "mean dilatation":
            own = (self.u, self.measure, self.points, self.weights, dx, self.symmetric)
            self.dilatation = MeanDilatation(*own)
        self._given = self.measure.part(ufl.grad(self.u)) if self.dilatation is None else self.dilatation.strain
        self._phases = []
        work, energy = [], []
        constant: list[Any] = []
        varying: list[Any] = []
        for tag, material in self.materials.items():
            cells = domain.cell_tags.find(tag)
            phase = Phase(material, cells, mesh, self._given, plane_of_mesh, q, self._step)
            self._phases.append(phase)
            forms = phase.forms if self.dilatation is None else partial(self.dilatation.forms, phase)
            r, k = forms(self.u, v, du, dx(tag))
            work.append(r)
            (varying if material.rate_dependent or expand_derivatives(k).coefficients() else constant).append(k)
            energy.append(None if phase.energy is None else phase.energy * dx(tag))
        self._forces = fem.form(sum(work))
        self._varying = fem.form(sum(varying)) if varying else None
        self._energy = None if None in energy else fem.form(sum(filter(None, energy)))
        # Linear phases are assembled here, once.
        self._linearised = sum(constant + varying)
        self._matrix = fem.create_matrix(fem.form(self._linearised))
        if constant:
            fem.assemble_matrix(self._matrix, fem.form(sum(constant)))
        self._constant = self._matrix.data.copy()
        if self.dilatation is not None:
            self.dilatation.finish(self._matrix)
        self.memory_size = sum(p.memory_size * p.cells.size * weights.size for p in self._phases)

    def set_step(self, step: TimeStep | None) -> None:
        """Begin a step, of no effect on materials that do not depend on time.

        Raises:
            ValueError: None, and some material depends on time; the message names it.
        """
        if self._step is not None:
            names = {type(m).__name__: None for m in self.materials.values() if m.rate_dependent}
            self._step.set(require_step(f"the response of {' and '.join(names)}", step))

    @property
    def memory(self) -> Array:
        """State and local unknowns of all quadrature points, (memory_size,)."""
        parts = [self._rows(p)[p.cells].ravel() for p in self._phases if p.memory_size]
        return np.concatenate(parts) if parts else np.zeros(0)

    @memory.setter
    def memory(self, values: Array) -> None:
        start = 0
        for p in self._phases:
            if p.memory_size:
                rows = self._rows(p)
                stop = start + p.cells.size * rows[0].size
                rows[p.cells] = values[start:stop].reshape(p.cells.size, *rows.shape[1:])
                start = stop

    def with_local(self, memory: Array, guess: Array) -> Array:
        """The state of `memory` with the local unknowns of `guess`, both (memory_size,)."""
        self.memory = memory
        phases = [p for p in self._phases if p.memory_size]
        states = [self._rows(p, "state").copy() for p in phases]
        self.memory = guess
        for p, state in zip(phases, states, strict=True):
            self._rows(p, "state")[:] = state
        return self.memory

    def _rows(self, phase: Phase, name: str | None = None) -> Array:
        """View (cells, points, size) of the memory of a phase, or of a field of it."""
        rows = phase.memory.x.array.reshape(-1, len(self.points), phase.memory_size)
        return rows if name is None else phase.layout.view(rows, name)

    @cached_property
    def _updates(self):
        return {p: compile_expression(ufl.as_vector(p.updated), self.points) for p in self._phases if p.state_size}

    @cached_property
    def _corrections(self):
        phases = [p for p in self._phases if p.local_size]
        return {p: compile_expression(p.local_solve(p.local_residual), self.points) for p in phases}

    @cached_property
    def _stresses(self):
        measure = self.measure
        return [compile_expression(measure.components_of(p.stress, self.dim), self.points) for p in self._phases]

    @cached_property
    def _balanced(self):
        """The stresses that the forces are made of."""
        if self.dilatation is None or not self.measure.finite:
            return self._stresses
        stresses = [self.dilatation.stress(p.stress) for p in self._phases]
        return [compile_expression(self.measure.vector(s), self.points) for s in stresses]

    @cached_property
    def _strain(self):
        return fem.Expression(self.measure.vector(self._given), self.points)

    @cached_property
    def _orientations(self):
        own = self.measure.orientation(ufl.grad(self.u))
        theta = [] if self.dilatation is None else [self.dilatation.theta]
        return fem.Expression(ufl.as_vector([own, *theta]), self.points)

    @property
    def inverted(self) -> bool:
        """Whether det F ≤ 0, or its mean, at some quadrature point of the present u; never at small strain."""
        return self.measure.finite and not bool((self._evaluate(self._orientations, self.cells) > 0).all())

    def _evaluate(self, expression: fem.Expression, cells) -> Array:
        if self.dilatation is not None:
            self.dilatation.update()
        return expression.eval(self.mesh, cells).reshape(len(cells), len(self.points), -1)

    def find_local(self) -> None:
        """Solve for the local unknowns at the present displacement; a no-op for materials without any.

        Raises:
            LocalError: no convergence at some quadrature point.
        """
        for p, correction in self._corrections.items():
            local = self._rows(p, "local")
            change = partial(self._evaluate, correction, p.cells)
            found = newton_local(local, p.cells, change, float(self.measure.finite))
            if found.failed.any():
                raise LocalError(
                    f"{p.name}: the local unknowns did not converge in {found.failed.sum()} of {p.cells.size} "
                    f"cells (last change {found.change:.3g} after at most {ITERATIONS} iterations)"
                )

    def _set_dilatation(self, held: Array | None = None) -> None:
        if self.dilatation is not None:
            self.dilatation.balance() if held is None else self.dilatation.hold(held)

    def forces(self, held: Array | None = None) -> Array:
        """Internal forces (dofs,) ∫ σ : ε(v) of the present displacement.

        Args:
            held: θ and p of `MeanDilatation.values` to take instead of those of the displacement.
        """
        self.find_local()
        self._set_dilatation(held)
        b = np.zeros(self.u.x.array.size)
        fem.assemble_vector(b, self._forces)
        return b

    def stiffness(self, held: Array | None = None) -> scipy.sparse.bsr_matrix:
        """Stiffness dR/du (dofs, dofs); its arrays are overwritten by the next call. Local unknowns must be found.

        Args:
            held: as in `forces`, from the linearisation at which the stiffness is then.
        """
        self._matrix.data[:] = self._constant
        self._set_dilatation(held)
        if self._varying is not None:
            fem.assemble_matrix(self._matrix, self._varying)
        if self.dilatation is not None:
            self.dilatation.add_stiffness(self._blocks.data)
        return self._blocks

    @cached_property
    def _blocks(self):
        n, m, size = self.u.x.array.size, self._matrix, self.measure.components(self.dim)
        matrix = scipy.sparse.bsr_matrix((n, n), blocksize=(size, size))
        matrix.data = m.data.reshape(-1, size, size)
        matrix.indices, matrix.indptr = m.indices, m.indptr.astype(m.indices.dtype)
        return matrix

    def phase_cells(self, tag: int) -> npt.NDArray[np.int32]:
        """The cells of the material `tag`."""
        return self._phases[list(self.materials).index(tag)].cells

    def phase_tangents(self) -> dict[int, Array]:
        """Tag → mean tangent dσ/dε (d, d) of its phase [MPa] at the present displacement; local unknowns must be found.

        Overwrites what `stiffness` returned.
        """
        tangents, affine = {}, self.affine()
        self._set_dilatation()
        for tag in self.materials:
            cells = np.sort(self.phase_cells(tag))
            alone = meshtags(self.mesh, self.mesh.topology.dim, cells, np.full(cells.size, tag, dtype=np.int32))
            # The forms of all phases, to compile nothing new; the other phases get no cells.
            form = ufl.Form([i.reconstruct(subdomain_data=alone) for i in self._linearised.integrals()])
            self._matrix.data[:] = 0.0
            fem.assemble_matrix(self._matrix, fem.form(form))
            if self.dilatation is not None:
                self.dilatation.add_stiffness(self._blocks.data, cells)
            tangents[tag] = affine.T @ (self._blocks @ affine) / self.weights[cells].sum()
        return tangents

    def energy(self) -> float:
        """Energy ∫ ψ, the incremental potential for materials with state; NaN if some material has only a stress."""
        if self.dilatation is not None:
            self.dilatation.update()
        return np.nan if self._energy is None else float(fem.assemble_scalar(self._energy))

    def finite_energy(self) -> float:
        """`energy` of a solution.

        Raises:
            LocalError: materials with an energy that does not exist there, such as one with the logarithm of a negative
                number, whose derivative may exist.
        """
        energy = self.energy()
        if self._energy is not None and not np.isfinite(energy):
            raise LocalError("the energy is not finite at the solution: some material is out of its domain there")
        return energy

    def updated_memory(self) -> Array:
        """Memory (memory_size,) after the present displacement is accepted."""
        old = self.memory
        for p, update in self._updates.items():
            self._rows(p, "state")[p.cells] = self._evaluate(update, p.cells)
        new_memory = self.memory
        self.memory = old
        return new_memory

    def stress(self) -> Array:
        """Stress at the quadrature points (cells, points, d) [MPa].

        With the mean dilatation at finite strain it is that of `MeanDilatation.stress`, conjugate to det F itself.
        """
        values = np.zeros((len(self.cells), len(self.points), self.measure.size(self.dim)))
        self._set_dilatation()
        for p, expression in zip(self._phases, self._balanced, strict=True):
            values[p.cells] = self._evaluate(expression, p.cells)
        return values

    def strain(self) -> Array:
        """Strain at the quadrature points (cells, points, d), that which the materials are given."""
        return self._evaluate(self._strain, self.cells)

    def affine(self, places: Array | None = None) -> Array:
        """Displacements (dofs, d) of the unit strains: u(x) = B_k (x − c), with the middle c.

        Args:
            places: (nodes, dim) x − c to take instead of that of the nodes.
        """
        x = self.V.tabulate_dof_coordinates()[:, : self.dim]
        x = x - (x.min(axis=0) + x.max(axis=0)) / 2 if places is None else places
        basis = self.measure.basis(self.dim)
        return np.einsum("kij,nj->nik", basis, x).reshape(-1, len(basis))
