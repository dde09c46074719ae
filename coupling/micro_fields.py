# SPDX-License-Identifier: MIT
"""ModesAtPoints of a cell from a trained model: what goes on inside of any point of a structure, without solving anything."""

import numpy as np
import numpy.typing as npt
import torch
from dolfinx import fem

from fe2 import RVE, MicroFields, arguments
from fe2.fingerprints import fingerprint
from spon import EquiNO, ModalCorrector, RVEModes
from spon.constitutive import constitutive_relation_error

Array = npt.NDArray[np.float64]


def micro_fields(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> MicroFields:
    """ModesAtPoints of the cell at one macroscale strain (d,), from the modes of a model.

    The strain is that of the displacement, and the stress is in equilibrium; what they do not agree in is the error,
    whose indicator they have if all materials have an energy.

    Args:
        rve: the cell. model: of this cell and with it, `spon.load(path, whole=True)`. strain: Mandel vector.

    Raises:
        ValueError: a model without its cell or of another one, or a strain of another shape, not finite or not real.
    """
    one = _one(rve, model, strain)
    with torch.no_grad():
        local = model.fields(one, model.rve_modes.at_points)
        return _placed(rve, model.rve_modes, one, model.displacement(one), *local)


def refined_fields(rve: RVE, refine: ModalCorrector, strain: npt.ArrayLike) -> MicroFields:
    """The same of the least energy in the modes, without the networks; see `spon.ModalCorrector`."""
    one, rve_modes = _one(rve, refine.model, strain), refine.model.rve_modes
    with torch.no_grad():
        found = refine(one)
        epsilon = one[:, None] + torch.einsum("pdr,nr->npd", rve_modes.at_points.strain_modes, found.coefficients)
        sigma = torch.einsum("pdr,nr->npd", rve_modes.at_points.stress_modes, found.stress_coefficients)
        return _placed(rve, rve_modes, one, found.coefficients, epsilon, sigma)


def _one(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> torch.Tensor:
    """The strain (1, d), checked as the model is."""
    model.rve_modes.at_points.require(fingerprint(rve))
    return torch.from_numpy(arguments.strains(np.asarray(strain)[None], rve.strain_size))


def _placed(
    rve: RVE,
    rve_modes: RVEModes,
    strain: torch.Tensor,
    coefficients: torch.Tensor,
    epsilon: torch.Tensor,
    sigma: torch.Tensor,
) -> MicroFields:
    """ModesAtPoints (1, P, d) at the cell's points in the order of cells × points."""

    def placed(values: torch.Tensor) -> Array:
        out = np.empty((rve_modes.order.size, *values.shape[2:]))
        out[rve_modes.order] = values[0].numpy()
        return out.reshape(*rve.body.weights.shape, *values.shape[2:])

    laws = rve_modes.at_points.laws
    known = all(law.energy_program is not None for law in laws.laws)
    displacement = fem.Function(rve.body.V, name="displacement")
    displacement.x.array[:] = rve.affine @ strain[0].numpy() + rve_modes.displacements @ coefficients[0].numpy()
    error = placed(constitutive_relation_error(laws, epsilon, sigma)) if known else None
    return MicroFields(displacement, placed(epsilon), placed(sigma), rve, error)
