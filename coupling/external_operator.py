# SPDX-License-Identifier: MIT
"""A law as the function of an external operator in a form (dolfinx_external_operator, DOLFINx 0.10 and later).

The package puts a symbol into a UFL form whose values, and derivatives by the operand, come from a Python function, as
arrays at the quadrature points:

    Q = fem.functionspace(mesh, basix.ufl.quadrature_element(cell, value_shape=(d,), degree=2))
    respond = coupling.ExternalLaw(law, mesh.comm)
    S = FEMExternalOperator(fe2.mandel.strain(u), function_space=Q, external_function=respond)
    F = ufl.inner(S, fe2.mandel.strain(v)) * dx

with `law.measure.of(u)` and `.of(v)` in place of the small strains for a law of another measure. Residual and Jacobian
are evaluated one after the other at the same strains, and the law only once.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from coupling.point_law import PointLaw, PointResponse
from fe2 import Law, raise_on_all_ranks
from fe2.measure import SMALL_STRAIN, measure_of
from fe2.phases import need_law

Array = npt.NDArray[np.float64]


class ExternalLaw:
    """The argument `external_function` of `FEMExternalOperator`: derivatives → function of the operand's values.

    Call `accept` when a step is solved, `reject` when it is to be repeated; until then all evaluations start from the
    same state.

    Args:
        law: any `fe2.Law`; the operand is its strain.
        comm: all ranks of the form.

    Raises:
        TypeError: a value that is no law.
        ValueError: a law that depends on time.
    """

    def __init__(self, law: Law, comm: MPI.Intracomm = MPI.COMM_SELF):
        need_law(law)
        if getattr(law, "rate_dependent", False):
            raise ValueError(
                f"{type(law).__name__} depends on time, which external operators do not pass on; use fe2.QuadratureLaw"
            )
        self.law, self.comm = law, comm
        self._respond: PointLaw | None = None
        self._strain = np.empty((0, law.strain_size))
        self._found: PointResponse | None = None

    def __call__(self, derivatives: tuple[int, ...]) -> Callable[[Array], Array]:
        """Stress for (0,), tangent for (1,): functions of strains (cells, points, d) that return flat arrays [MPa].

        The functions are collective, as the assembly is, and raise ValueError on all ranks for strains of another
        shape, not finite or not real.

        Raises:
            ValueError: other derivatives.
        """
        if derivatives not in ((0,), (1,)):
            raise ValueError(f"derivatives = {derivatives}: need (0,) for the stress or (1,) for the tangent")
        return lambda strain: self._at(strain)[derivatives[0]].flatten()

    def accept(self) -> None:
        """Accept the step: the next one starts from the state of the last evaluation."""
        if self._respond is not None:
            self._respond.accept()
            self._found = None

    def reject(self) -> None:
        """Reject the step: discard the evaluations since the last `accept`."""
        if self._respond is not None:
            self._respond.reject()
            self._found = None

    def _at(self, strain: Array) -> PointResponse:
        given, d = np.asarray(strain), self.law.strain_size
        with raise_on_all_ranks(self.comm):
            # Some versions hand over all numbers of a cell in a row.
            flat = given.ndim == 2 and given.shape[1] != d and given.shape[1] % d == 0
            if given.ndim not in (2, 3) or not (flat or given.shape[-1] == d):
                measure = measure_of(self.law)
                such = "fe2.mandel.strain(u)" if measure is SMALL_STRAIN else "law.measure.of(u)"
                raise ValueError(
                    f"the operand has values of the shape {given.shape}, need (cells, points, {d}): "
                    f"{measure.component_names}, such as {such}"
                )
        rows = given.reshape(-1, d)
        if self._respond is None:
            self._respond = PointLaw(self.law, len(rows), comm=self.comm)
        # A law may share its work among the ranks, so either all of them evaluate it or none.
        known = self.comm.allreduce(self._found is not None and np.array_equal(rows, self._strain), MPI.LAND)
        if self._found is None or not known:
            self._found, self._strain = self._respond(rows), rows.copy()
        return self._found
