# SPDX-License-Identifier: MIT
"""Fields of a cell from a trained model: what goes on inside of any point of a structure, without solving anything."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from dolfinx import fem

from fe2 import RVE
from fe2.micro import write_fields
from fe2.snapshots import fingerprint
from spon import EquiNO
from spon.convex import indicator

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MicroFields:
    """Fields of a cell at its quadrature points, in the order of `fe2.RVE.body`.

    displacement: `fem.Function` on the body's space, with the affine part. strain, stress: (cells, points, d) Mandel,
    stress in MPa. indicator: (cells, points) ψ(ε) + ψ*(σ) − σ·ε ≥ 0 [MPa], which vanishes where stress and strain obey
    the law; its mean over the cell is the gap of the certificate. rve: the cell.
    """

    displacement: fem.Function
    strain: Array
    stress: Array
    indicator: Array
    rve: RVE

    def write(self, path: str | Path) -> None:
        """Write displacement and cell means of the others to `path` (.xdmf); not collective, one rank does it."""
        fields = {"stress": self.stress, "strain": self.strain, "indicator": self.indicator}
        write_fields(path, self.rve, self.displacement, fields)


def micro_fields(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the cell at one macroscale strain (d,), from the modes of a model.

    The strain is that of the displacement, and the stress is in equilibrium; what they do not agree in is the error.

    Args:
        rve: the cell. model: of this cell and with it, `spon.load(path, whole=True)`. strain: Mandel vector.

    Raises:
        ValueError: a model without its cell or of another one, or a strain of another shape or not finite.
    """
    cell = model.cell
    cell.require(fingerprint(rve))
    strain = np.asarray(strain, dtype=np.float64)
    if strain.shape != (rve.strain_size,) or not np.isfinite(strain).all():
        raise ValueError(f"strain = {strain}: need {rve.strain_size} finite Mandel components")
    with torch.no_grad():
        one = torch.from_numpy(strain)[None]
        epsilon, sigma = (values[0] for values in model.fields(one, cell.fields))
        coefficients = model.displacement(one)[0].numpy()
        mismatch = indicator(cell.fields.laws, epsilon, sigma)
    displacement = fem.Function(rve.body.V, name="displacement")
    displacement.x.array[:] = rve.affine @ strain + cell.displacements @ coefficients

    def placed(values: torch.Tensor) -> Array:
        """In the order of cells × points."""
        out = np.empty((cell.order.size, *values.shape[1:]))
        out[cell.order] = values.numpy()
        return out.reshape(*rve.body.weights.shape, *values.shape[1:])

    return MicroFields(displacement, placed(epsilon), placed(sigma), placed(mismatch), rve)
