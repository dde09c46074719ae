# SPDX-License-Identifier: MIT
"""A material as a law, without microstructure: for homogeneous structures, or parts of one."""

import basix
import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from mpi4py import MPI
from dolfinx import fem
from dolfinx.mesh import create_interval

from fe2 import arguments
from fe2.body import LocalError, Phase
from fe2.expressions import compile_expression
from fe2.laws import Response
from fe2.local_newton import newton_local
from fe2.materials import Material
from fe2.ranks import raise_on_all_ranks
from fe2.time_step import StepConstants, TimeStep, require_step
from fe2.zero_strain import check_elliptic, check_objective, rotation

Array = npt.NDArray[np.float64]


class UFLLaw:
    """Stress, consistent tangent and state of a material at single points, from its one definition in UFL.

    A state row holds the state of the material, then its local unknowns, from which the next local iteration starts (in
    plane stress the strain through the thickness is the last of them, at finite strain the logarithmic one).

    Args:
        material: any `fe2.Material`.
        dim: space dimension, 2 or 3.
        plane: "strain" or "stress", in two dimensions.
        chunk: points evaluated at a time, which bounds the memory.

    Attributes:
        measure: of the material.
        strain_size: d, the number of components of the strain.
        layout: of a state row: "state" with the fields of the material's state, "local" with its local unknowns.
        state_size: of the layout.
        rate_dependent: whether the material depends on time, so that `evaluate` needs a step.

    Raises:
        ValueError: another `dim` or `plane`, a chunk below 1, or a material whose stiffness at zero strain is not
            positive, see `fe2.zero_strain.check_elliptic`.
    """

    def __init__(self, material: Material, *, dim: int = 2, plane: str = "strain", chunk: int = 4096):
        if dim not in (2, 3):
            raise ValueError(f"dim = {dim}: need 2 or 3")
        if plane not in ("strain", "stress"):
            raise ValueError(f"plane = {plane!r}: need 'strain' or 'stress'")
        if chunk < 1:
            raise ValueError(f"chunk = {chunk}: need at least 1 point")
        self.material = material
        self.measure = measure = material.measure
        if measure.scalar and plane == "stress":
            raise ValueError("plane = 'stress': the gradient of a scalar has no plane stress; leave out `plane`")
        self.strain_size = d = measure.size(dim)
        self.chunk = chunk
        # An interval stands for a point: one quadrature point each, so strain and memory are functions on a mesh, and
        # what DOLFINx compiles for cells is evaluated at points of any structure.
        self._mesh = mesh = create_interval(MPI.COMM_SELF, chunk, (0.0, float(chunk)))
        cells = np.arange(chunk, dtype=np.int32)
        element = basix.ufl.quadrature_element(mesh.basix_cell(), (d,), degree=0)
        self._strain = fem.Function(fem.functionspace(mesh, element))
        strain = ufl.variable(self._strain)
        self.rate_dependent = material.rate_dependent
        self._step = StepConstants(mesh) if self.rate_dependent else None
        plane_of_points = plane if dim == 2 and not measure.scalar else None
        self._phase = phase = Phase(material, cells, mesh, measure.tensor(strain), plane_of_points, 0, self._step)
        self.layout = phase.layout
        self.state_size = self.layout.size

        stress = measure.components_of(phase.stress, dim)
        tangent = ufl.diff(stress, strain)
        if phase.local_size:
            # The local unknowns follow the strain: dl/dE = −(∂g/∂l)⁻¹ ∂g/∂E, g the local residual.
            m = phase.local_size
            sensitivity = ufl.diff(phase.local_residual, strain)
            columns = [phase.local_solve(ufl.as_vector([sensitivity[i, k] for i in range(m)])) for k in range(d)]
            follow = ufl.as_matrix([[columns[k][i] for k in range(d)] for i in range(m)])
            tangent -= ufl.dot(ufl.diff(stress, phase.local), follow)
        # A tangent of literal numbers alone has no mesh, and DOLFINx 0.11 cannot evaluate it.
        tangent *= fem.Constant(mesh, 1.0)
        point, _ = basix.make_quadrature(mesh.basix_cell(), 0)
        self._stress, self._tangent = compile_expression(stress, point), compile_expression(tangent, point)
        energy = None if phase.energy is None else phase.energy * fem.Constant(mesh, 1.0)
        self._energy = None if energy is None else compile_expression(energy, point)
        self._update = compile_expression(ufl.as_vector(phase.updated), point) if phase.state_size else None
        correction = phase.local_solve(phase.local_residual) if phase.local_size else None
        self._correction = None if correction is None else compile_expression(correction, point)
        self._checked = False
        if not self.rate_dependent:  # else in the first step
            self._check()

    def _check(self) -> None:
        """Raise ValueError for a stiffness at zero strain that is not positive, or an energy that is not objective."""
        rest, out = self.initial_state(1), self._empty(1)
        try:
            self._evaluate(out, slice(0, 1), np.zeros((1, self.strain_size)), rest, rest)
            check_elliptic(out.tangent[0], self._phase.name, self.measure)
            if self.measure.finite:
                turned, dim = self._empty(1), self.measure.dimension(self.strain_size)
                self._evaluate(turned, slice(0, 1), (rotation(dim) - np.eye(dim)).reshape(1, -1), rest, rest)
                check_objective(out.stress, turned.stress, float(abs(out.tangent).max()), self._phase.name)
        except LocalError:
            pass  # raised again where a strain is evaluated
        self._checked = True

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return np.zeros((n, self.state_size))

    def evaluate(
        self,
        strain: Array,
        state: Array,
        guess: Array,
        comm: MPI.Comm = MPI.COMM_SELF,
        step: TimeStep | None = None,
    ) -> Response:
        """See `fe2.Law.evaluate`; each rank evaluates its own points.

        The response is NaN where det F ≤ 0 or the energy is not finite.

        Raises:
            ValueError: see `fe2.Law.evaluate`.
            LocalError: on all ranks, when the local unknowns of some point do not converge; names the strain.
        """
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            if self._step is not None:
                self._step.set(require_step(f"the response of {self._phase.name}", step))
                if not self._checked:
                    self._check()
            n = len(strain)
            out = self._empty(n)
            for start in range(0, n, self.chunk):
                part = slice(start, min(start + self.chunk, n))
                self._evaluate(out, part, strain[part], state[part], guess[part])
        return out

    def _empty(self, n: int) -> Response:
        d = self.strain_size
        return Response(np.empty((n, d)), np.empty((n, d, d)), np.empty((n, self.state_size)))

    def _evaluate(self, out: Response, part: slice, strain: Array, state: Array, guess: Array) -> None:
        n, view = len(strain), self.layout.view
        cells = np.arange(n, dtype=np.int32)

        def values(expression):
            return expression.eval(self._mesh, cells).reshape(n, -1)

        self._strain.x.array.reshape(-1, self.strain_size)[:n] = strain
        if self.state_size:
            memory = self._phase.memory.x.array.reshape(-1, 1, self.state_size)
            view(memory, "state")[:n, 0] = view(state, "state")
            view(memory, "local")[:n, 0] = view(guess, "local")
        if self._correction is not None:
            local = view(memory, "local")
            found = newton_local(local, cells, lambda: values(self._correction)[:, None, :], float(self.measure.finite))
            if found.failed.any():
                k = int(np.flatnonzero(found.failed)[0])
                shown = np.array2string(strain[k], precision=6)
                raise LocalError(
                    f"{self._phase.name}: the local unknowns did not converge at {found.failed.sum()} of {n} points, "
                    f"the first of them point {part.start + k} with strain {shown} "
                    f"(last change {found.change:.3g})"
                )
            view(out.state[part], "local")[:] = local[:n, 0]
        out.stress[part] = values(self._stress)
        out.tangent[part] = values(self._tangent).reshape(n, self.strain_size, self.strain_size)
        lost = self.measure.determinants(strain) <= 0
        if self._energy is not None:
            lost |= ~np.isfinite(values(self._energy)[:, 0])
        out.stress[part][lost], out.tangent[part][lost] = np.nan, np.nan
        if self._update is not None:
            view(out.state[part], "state")[:] = values(self._update)
