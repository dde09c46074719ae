# SPDX-License-Identifier: MIT
"""Newton steps that hold the dilatations and pressures they intended, for the mean dilatation at finite strain.

See `fe2.mean_dilatation` for why. A new strain begins with those of the last solution; a step goes from those of its
beginning along their derivatives; and a solution is linearised at its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used

from fe2.body import Body
from fe2.boundary import Unknowns
from fe2.mean_dilatation import MeanDilatation
from fe2.micro_iterate import Point

Array = npt.NDArray[np.float64]


class HeldPressures:
    """What points of an RVE hold.

    Args:
        body: of the RVE.
        dilatation: of the body.
        unknowns: of the boundary condition.
        affine: (dofs, d) displacements of the unit strains.
    """

    def __init__(self, body: Body, dilatation: MeanDilatation, unknowns: Unknowns, affine: Array):
        self._body, self._dilatation, self._unknowns, self._affine = body, dilatation, unknowns, affine

    @classmethod
    def of(cls, body: Body, unknowns: Unknowns, affine: Array) -> HeldPressures | None:
        """Those of an RVE; None for other elements, and at small strain, where the step is that of a linear map."""
        dilatation = body.dilatation if body.measure.finite else None
        return None if dilatation is None else cls(body, dilatation, unknowns, affine)

    def along(self, point: Point, step: Array, strain_step: Array) -> Callable[[float], Array]:
        """The length of a step → dilatations and pressures to hold at its end.

        Args:
            point: at the beginning of the step, its memory in the body.
            step: (unknowns,), minus the direction in the fluctuation.
            strain_step: (d,), minus that in the strain.
        """
        first = not point.history
        here = point.held
        if not first or here is None:
            strain = point.before if first and point.before.size else point.strain
            self._body.u.x.array[:] = self._affine @ strain + self._unknowns.expand(point.w)
            self._body.find_local()
            here = self._dilatation.values()
        if first:
            return lambda length: here
        change = self._dilatation.ahead(self._affine @ strain_step + self._unknowns.expand(step))
        return lambda length: here - length * change

    def release(self, point: Point) -> scipy.sparse.bsr_matrix:
        """The stiffness of a solution, at its own dilatations and pressures, with which the next strain begins."""
        point.held = self._dilatation.values()
        return self._body.stiffness()
