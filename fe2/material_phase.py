# SPDX-License-Identifier: MIT
"""A material on its cells: its expressions of the strain there, and its memory at the quadrature points."""

from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fe2.materials import Material
from fe2.measure import Measure
from fe2.state import StateLayout, layout_of
from fe2.time_step import StepConstants


class Phase:
    """A material on its cells: UFL expressions of a strain, and the memory at the quadrature points.

    Args:
        material: the material.
        cells: those of the material.
        mesh: of the strain and the memory.
        strain: UFL tensor of its measure, (dim, dim) or (dim,).
        plane: "strain" or "stress" in two dimensions.
        degree: of the quadrature.
        step: for a material that depends on time.
    """

    def __init__(
        self,
        material: Material,
        cells: npt.NDArray[np.int32],
        mesh,
        strain: Any,
        plane: str | None,
        degree: int,
        step: StepConstants | None = None,
    ):
        self.name = type(material).__name__
        self.measure: Measure = material.measure
        self.rate_dependent = material.rate_dependent
        self.cells = cells
        self.state_size = material.state_size
        self.local_size = material.local_size + (plane == "stress")
        self.layout = StateLayout(state=layout_of(material), local=self.local_size)
        self.memory_size = self.layout.size
        self.memory: Any = None  # a `fem.Function` (state, local) at the quadrature points
        state: Any = None
        local: Any = None
        if self.memory_size:
            element = basix.ufl.quadrature_element(mesh.basix_cell(), (self.memory_size,), degree=degree)
            self.memory = fem.Function(fem.functionspace(mesh, element))
            state = ufl.as_vector(self.layout.entries(self.memory, "state")) if self.state_size else None
        if self.local_size:
            local = ufl.variable(ufl.as_vector(self.layout.entries(self.memory, "local")))

        material = material.bind(mesh, step) if material.rate_dependent else material.bind(mesh)
        thickness_strain = local[self.local_size - 1] if plane == "stress" else 0
        strain = self.measure.argument(strain, thickness_strain)
        self.energy = material.energy(strain, state, local)
        self.stress = material.stress(strain, state, local)
        self.updated = material.update(strain, state, local)
        self.local = local
        if self.local_size:
            # Stationarity in the material's own local unknowns, and no stress through the thickness.
            own = range(material.local_size)
            through = [self.measure.through(self.stress, strain)] if plane == "stress" else []
            self.local_residual = ufl.as_vector([ufl.diff(self.energy, local)[i] for i in own] + through)

    def local_solve(self, residual):
        """UFL vector (∂g/∂l)⁻¹ `residual` for the local residual g and the local unknowns l."""
        jacobian = ufl.diff(self.local_residual, self.local)
        if self.local_size == 1:
            return ufl.as_vector([residual[0] / jacobian[0, 0]])
        return ufl.dot(ufl.inv(jacobian), residual)

    def forms(self, u, v, du, dx):
        """UFL internal virtual work and its linearisation, the local unknowns condensed."""
        work = ufl.inner(self.stress, self.measure.embedded(self.measure.part(ufl.grad(v))))
        return work * dx, self.derivative(work, u, du) * dx

    def derivative(self, value, of, change):
        """UFL derivative of a scalar by the function `of` in the direction `change`, the local unknowns condensed."""
        found = ufl.derivative(value, of, change)
        if self.local_size:
            local = self.local_solve(ufl.derivative(self.local_residual, of, change))
            found -= ufl.inner(ufl.diff(value, self.local), local)
        return found
