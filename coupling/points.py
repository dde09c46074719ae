# SPDX-License-Identifier: MIT
"""Laws for programs that know nothing of `fe2`: a plain function of arrays, and a micro simulation of preCICE.

Both hold the state of their points: what they answer does not change it until `accept` says that the step is good.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from fe2 import Law, arguments, mandel, together

Array = npt.NDArray[np.float64]
Notation = Literal["Mandel", "engineering"]


class PointLaw:
    """A law at n points as a function of their strains.

        respond = coupling.PointLaw(law, 100)
        stress, tangent = respond(strain)  # (100, d) and (100, d, d), as often as one likes
        respond.accept()                   # the step is good; the next one starts from here

    Args:
        law: any `fe2.Law`. n: points of this rank. comm: ranks among which a law may share its work, which then call
            together.
        notation: of strains, stresses and tangents: "Mandel", or "engineering" with shears γ = 2 ε and stresses as they
            are, both in the order of `fe2.mandel`.

    Attributes:
        state: (n, state_size) that was accepted last.

    Raises:
        ValueError: another notation.
    """

    def __init__(self, law: Law, n: int, *, comm: MPI.Comm = MPI.COMM_SELF, notation: Notation = "Mandel"):
        if notation not in ("Mandel", "engineering"):
            raise ValueError(f"notation = {notation!r}, need 'Mandel' or 'engineering'")
        self.law, self.comm = law, comm
        ones = np.ones(law.strain_size)
        # Engineering shears are √2 times those of Mandel vectors, stresses a √2-th.
        self._factor = mandel.to_engineering(ones) if notation == "engineering" else ones
        self.state = self._last = law.initial_state(n)

    def __call__(self, strain: npt.ArrayLike) -> tuple[Array, Array]:
        """Stress (n, d) and consistent tangent (n, d, d) [MPa] at strains (n, d) of the end of the step.

        Raises:
            ValueError: strains of another shape, not finite or not real. What the law raises.
        """
        with together(self.comm):
            if np.shape(strain) != (len(self.state), self.law.strain_size):
                need = len(self.state), self.law.strain_size
                raise ValueError(f"strain has the shape {np.shape(strain)}, need {need} Mandel components")
            given = np.ascontiguousarray(arguments.strains(strain, self.law.strain_size))
        found = self.law.evaluate(given / self._factor, self.state, self._last, self.comm)
        self._last = found.state
        return found.stress / self._factor, found.tangent / np.outer(self._factor, self._factor)

    def accept(self) -> None:
        """The state of the last evaluation is where the next step starts."""
        self.state = self._last

    def reject(self) -> None:
        """Forget what was evaluated since the last `accept`."""
        self._last = self.state


def micro_simulation(law: Law) -> type:
    """The class that the Micro Manager of preCICE asks for, of a law in Mandel notation.

    Its configuration names a file of yours with

        import coupling, spon
        MicroSimulation = coupling.micro_simulation(coupling.SurrogateLaw(spon.load("model.safetensors")))

    Macro data are "strain", a vector of d components; micro data "stress" (d,) and "tangent", the rows of the tangent
    one after the other (d²,). The state that the manager saves for another iteration of a coupling step is the accepted
    one; a time step whose data are asked for again from there, with `set_state`, was not good. The interface is that of
    its documentation: `MicroSimulation(sim_id)`, `initialize()`, `solve(macro_data, dt)`, `get_state()` and
    `set_state(state)`.
    """

    class MicroSimulation:
        """One point of the law."""

        def __init__(self, sim_id: int):
            self.sim_id, self._respond = sim_id, PointLaw(law, 1)

        def initialize(self) -> dict[str, Array]:
            """Micro data at rest."""
            return self._data(np.zeros(law.strain_size))

        def solve(self, macro_data: dict[str, Any], dt: float) -> dict[str, Array]:
            """Micro data at the macro data {"strain": (d,)}; raises KeyError or ValueError for others."""
            if "strain" not in macro_data:
                raise KeyError(f"macro data have no 'strain', only {', '.join(map(repr, macro_data)) or 'nothing'}")
            # The manager has gone on from what was solved last, unless it has set the state back.
            self._respond.accept()
            return self._data(np.asarray(macro_data["strain"], dtype=np.float64))

        def get_state(self) -> bytes:
            """What `set_state` goes back to, as bytes that the manager may send to another rank."""
            self._respond.accept()
            return self._respond.state.tobytes()

        def set_state(self, state: bytes) -> None:
            """Go back to a state; raises ValueError for one of another law."""
            rows = np.frombuffer(state, dtype=np.float64)
            if rows.size != law.state_size:
                raise ValueError(f"the state has {rows.size} numbers, the law's has {law.state_size}")
            self._respond.state = rows.reshape(1, -1).copy()
            self._respond.reject()

        def _data(self, strain: Array) -> dict[str, Array]:
            stress, tangent = self._respond(strain.reshape(1, -1))
            return {"stress": stress[0], "tangent": tangent[0].ravel()}

    return MicroSimulation
