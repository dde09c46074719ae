# SPDX-License-Identifier: MIT
"""Fields of a cell from a trained model: what goes on inside of any point of a structure, without solving anything."""

import numpy as np
import numpy.typing as npt
import torch
from dolfinx import fem

from fe2 import RVE, MicroFields, arguments
from fe2.fingerprints import fingerprint
from spon import CellFields, EquiNO, Refinement
from spon.constitutive import indicator

Array = npt.NDArray[np.float64]


def micro_fields(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the cell at one macroscale strain (d,), from the modes of a model.

    The strain is that of the displacement, and the stress is in equilibrium; what they do not agree in is the error,
    whose indicator they have if all materials have an energy.

    Args:
        rve: the cell. model: of this cell and with it, `spon.load(path, whole=True)`. strain: Mandel vector.

    Raises:
        ValueError: a model without its cell or of another one, or a strain of another shape, not finite or not real.
    """
    one = _one(rve, model, strain)
    with torch.no_grad():
        local = model.fields(one, model.cell.fields)
        return _placed(rve, model.cell, one, model.displacement(one), *local)


def refined_fields(rve: RVE, refine: Refinement, strain: npt.ArrayLike) -> MicroFields:
    """The same of the least energy in the modes, without the networks; see `spon.Refinement`."""
    one, cell = _one(rve, refine.model, strain), refine.model.cell
    with torch.no_grad():
        found = refine(one)
        epsilon = one[:, None] + torch.einsum("pdr,nr->npd", cell.fields.strain_modes, found.coefficients)
        sigma = torch.einsum("pdr,nr->npd", cell.fields.stress_modes, found.stress_coefficients)
        return _placed(rve, cell, one, found.coefficients, epsilon, sigma)


def _one(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> torch.Tensor:
    """The strain (1, d), checked as the model is."""
    model.cell.fields.require(fingerprint(rve))
    return torch.from_numpy(arguments.strains(np.asarray(strain)[None], rve.strain_size))


def _placed(
    rve: RVE,
    cell: CellFields,
    strain: torch.Tensor,
    coefficients: torch.Tensor,
    epsilon: torch.Tensor,
    sigma: torch.Tensor,
) -> MicroFields:
    """Fields (1, P, d) at the cell's points in the order of cells × points."""

    def placed(values: torch.Tensor) -> Array:
        out = np.empty((cell.order.size, *values.shape[2:]))
        out[cell.order] = values[0].numpy()
        return out.reshape(*rve.body.weights.shape, *values.shape[2:])

    laws = cell.fields.laws
    known = all(law.energy_program is not None for law in laws.laws)
    displacement = fem.Function(rve.body.V, name="displacement")
    displacement.x.array[:] = rve.affine @ strain[0].numpy() + cell.displacements @ coefficients[0].numpy()
    return MicroFields(
        displacement, placed(epsilon), placed(sigma), rve, placed(indicator(laws, epsilon, sigma)) if known else None
    )
