# SPDX-License-Identifier: MIT
"""The plug: stress and tangent of a law as functions at the quadrature points of a user's own variational form."""

import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from ufl.algorithms import expand_derivatives

from fe2 import mandel
from fe2.body import quadrature_degree
from fe2.laws import Law


class QuadratureLaw:
    """A law at all quadrature points of a mesh, for use in UFL.

    Write the residual with `stress` where a closed-form script has σ(u), as a Mandel vector, and integrate with `dx`:

        sigma = fe2.QuadratureLaw(law, u)
        F = ufl.inner(sigma.stress, fe2.mandel.strain(v)) * sigma.dx - ufl.dot(b, v) * sigma.dx
        J = sigma.derivative(F, du)

    Call `update()` whenever u has changed and `commit()` when the step is accepted.

    Args:
        law: the law. u: displacement, a `fem.Function` on a Lagrange space.
        strain: UFL vector (d,) of u; None for the Mandel vector of the small strain.
        subdomain_data: cell tags for the measure `dx`, if the form needs them.

    Attributes:
        stress: `fem.Function` (d,); tangent: `fem.Function` (d, d); dx: the measure with the law's quadrature points.
        state, guess: (points, state_size) accepted state, and that of the last update.
    """

    def __init__(self, law: Law, u: fem.Function, *, strain=None, subdomain_data=None):
        mesh = u.function_space.mesh
        self.law, self.u, self.mesh = law, u, mesh
        self.strain = mandel.strain(u) if strain is None else strain
        d = law.strain_size
        if self.strain.ufl_shape != (d,):
            raise ValueError(f"the strain has shape {self.strain.ufl_shape}, the law takes ({d},)")
        q = quadrature_degree(mesh, u.function_space.element.basix_element.degree)
        self.points, _ = basix.make_quadrature(mesh.basix_cell(), q)
        self.stress, self.tangent = (
            fem.Function(fem.functionspace(mesh, basix.ufl.quadrature_element(mesh.basix_cell(), s, degree=q)), name=n)
            for s, n in (((d,), "stress"), ((d, d), "tangent"))
        )
        self.dx = ufl.Measure("dx", domain=mesh, subdomain_data=subdomain_data, metadata={"quadrature_degree": q})
        self._strain = fem.Expression(self.strain, self.points)
        # Each rank evaluates the points of the cells it owns; no form reads the others.
        self.cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        self.state = law.initial_state(self.cells.size * len(self.points))
        self.guess = self.state

    def strains(self) -> npt.NDArray[np.float64]:
        """Strain (points, d) at the present displacement, cell by cell."""
        return self._strain.eval(self.mesh, self.cells).reshape(-1, self.law.strain_size)

    def update(self) -> None:
        """Evaluate the law at the present displacement (collective). Raises what the law raises, on all ranks."""
        response = self.law.evaluate(self.strains(), self.state, self.guess, self.mesh.comm)
        n = response.stress.size
        self.stress.x.array[:n] = response.stress.ravel()
        self.tangent.x.array[: n * self.law.strain_size] = response.tangent.ravel()
        self.guess = response.state

    def commit(self) -> None:
        """Accept the step: the state of the last update becomes the state that the next step starts from."""
        self.state = self.guess

    def rollback(self) -> None:
        """Give the step up: start again from the accepted state."""
        self.guess = self.state

    def derivative(self, F, du):
        """UFL derivative of a form `F` of `stress` (and perhaps u itself) in the direction `du`."""
        strain = expand_derivatives(ufl.derivative(self.strain, self.u, du))
        change = ufl.dot(self.tangent, strain)
        return ufl.derivative(F, self.u, du) + ufl.derivative(F, self.stress, change)
