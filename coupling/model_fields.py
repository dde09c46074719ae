# SPDX-License-Identifier: MIT
"""Fields of the RVE at any point of a structure from a trained model, without a solution."""

import numpy as np
import numpy.typing as npt
import torch
from dolfinx import fem

from fe2 import RVE, MicroFields, arguments
from fe2.fingerprints import fingerprint
from spon import EquiNO, ModalCorrector, RVEModes
from spon.constitutive import energy_pair
from spon.reduced import LocalFields

Array = npt.NDArray[np.float64]


def micro_fields(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the RVE at one macroscale strain, from the modes of a model.

    The strain is that of the displacement, and the stress is in equilibrium; they differ by the error of the model,
    which `MicroFields.constitutive_relation_error` measures if all materials have an energy.

    Args:
        rve: the RVE.
        model: of this RVE, loaded with its modes, `spon.load(path, whole=True)`.
        strain: (d,) Mandel.

    Raises:
        ValueError: a model without its modes or of another RVE; a strain of another shape, not finite or not real.
    """
    one = _checked(rve, model, strain)
    with torch.no_grad():
        fields = model.fields(one, model.rve_modes.at_points)
        return _in_the_body(rve, model.rve_modes, one, model.displacement(one), fields)


def corrected_fields(rve: RVE, correct: ModalCorrector, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the RVE at one macroscale strain, of the least energy in the modes, without the networks.

    Args:
        rve: the RVE.
        correct: of a model of this RVE, loaded with its modes.
        strain: (d,) Mandel.

    Raises:
        ValueError: as `micro_fields`.
    """
    one, modes = _checked(rve, correct.model, strain), correct.model.rve_modes
    with torch.no_grad():
        found = correct(one)
        fields = modes.at_points.fields(one, found.coefficients, found.stress_coefficients)
        return _in_the_body(rve, modes, one, found.coefficients, fields)


def _checked(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> torch.Tensor:
    """The strain (1, d), after the checks of strain and model."""
    model.rve_modes.at_points.require(fingerprint(rve))
    return torch.from_numpy(arguments.strains(np.asarray(strain)[None], rve))


def _in_the_body(
    rve: RVE, modes: RVEModes, strain: torch.Tensor, coefficients: torch.Tensor, fields: LocalFields
) -> MicroFields:
    """Fields (1, P, d) at the points of the modes, in the order of the body, cells × points."""

    def ordered(values: torch.Tensor) -> Array:
        out = np.empty((modes.order.size, *values.shape[2:]))
        out[modes.order] = values[0].numpy()
        return out.reshape(*rve.body.weights.shape, *values.shape[2:])

    laws = modes.at_points.laws
    known = all(law.energy_program is not None for law in laws.laws)
    displacement = fem.Function(rve.body.V, name="displacement")
    displacement.x.array[:] = rve.affine @ strain[0].numpy() + modes.displacements @ coefficients[0].numpy()
    error = ordered(energy_pair(laws, fields.strain, fields.stress).error) if known else None
    return MicroFields(displacement, ordered(fields.strain), ordered(fields.stress), rve, error)
