# SPDX-License-Identifier: MIT
"""Fields of the RVE at any point of a structure from a trained model, without a solution."""

import numpy as np
import numpy.typing as npt
import torch
from dolfinx import fem

from fe2 import RVE, MicroFields, arguments
from fe2.fingerprints import fingerprint
from spon import EquiNO, ModalCorrector
from spon.constitutive import constitutive_error
from spon.reduced import LocalFields

Array = npt.NDArray[np.float64]


def micro_fields(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the RVE at one macroscale strain, from the modes of a model.

    The strain is that of the displacement, and the stress is in equilibrium; they differ by the error of the model,
    which `MicroFields.constitutive_relation_error` measures if all materials have an energy.

    Args:
        rve: the RVE.
        model: of this RVE, loaded with its modes, `spon.load(path, whole=True)`.
        strain: (d,).

    Raises:
        ValueError: a model without its modes or of another RVE; a strain of another shape, not finite or not real.
    """
    one = _checked(rve, model, strain)
    with torch.no_grad():
        coordinates = model.measure.coordinates(one)
        fields = model.stretch_fields(coordinates, model.rve_modes.at_points)
        return _in_the_body(rve, model, one, model.displacement(coordinates), fields)


def corrected_fields(rve: RVE, correct: ModalCorrector, strain: npt.ArrayLike) -> MicroFields:
    """Fields of the RVE at one macroscale strain, of the least energy in the modes, without the networks.

    Args:
        rve: the RVE.
        correct: of a model of this RVE, loaded with its modes.
        strain: (d,).

    Raises:
        ValueError: as `micro_fields`.
    """
    one, model = _checked(rve, correct.model, strain), correct.model
    with torch.no_grad():
        found, stretch = correct(one), model.measure.stretch(one)
        fields = model.rve_modes.at_points.fields(stretch, found.coefficients, found.stress_coefficients)
        return _in_the_body(rve, model, one, found.coefficients, fields)


def _checked(rve: RVE, model: EquiNO, strain: npt.ArrayLike) -> torch.Tensor:
    """The strain (1, d), after the checks of strain and model."""
    model.rve_modes.at_points.require(fingerprint(rve))
    return torch.from_numpy(arguments.strains(np.asarray(strain)[None], rve))


def fluctuation(model: EquiNO, strain: torch.Tensor, coefficients: torch.Tensor, modes: torch.Tensor) -> Array:
    """Fluctuations (n, k) of the displacement, turned with the RVE at finite strain.

    Args:
        model: of the coefficients.
        strain: (n, d).
        coefficients: (n, r), at the stretches.
        modes: (k, r), displacements of nodes, all components of a node in a row.
    """
    found = coefficients @ modes.mT
    if model.measure.finite:
        rotation = model.measure.rotations(strain)
        found = (found.unflatten(1, (-1, rotation.shape[1])) @ rotation.mT).flatten(1)
    return np.asarray(found.numpy())


def _in_the_body(
    rve: RVE, model: EquiNO, strain: torch.Tensor, coefficients: torch.Tensor, fields: LocalFields
) -> MicroFields:
    """Fields (1, P, d) at the points of the modes and at the stretch, in the order of the body, cells × points."""
    modes = model.rve_modes

    def ordered(values: torch.Tensor) -> Array:
        out = np.empty((modes.order.size, *values.shape[2:]))
        out[modes.order] = values[0].numpy()
        return out.reshape(*rve.body.weights.shape, *values.shape[2:])

    laws = modes.at_points.laws
    known = all(law.energy_program is not None for law in laws.laws)
    displacement = fem.Function(rve.body.V, name=rve.measure.field)
    moved = fluctuation(model, strain, coefficients, torch.from_numpy(modes.displacements))
    displacement.x.array[:] = rve.affine @ strain[0].numpy() + moved[0]
    error = ordered(constitutive_error(laws, fields.strain, fields.stress).error) if known else None
    fields = fields.turned(model.measure, strain)
    return MicroFields(displacement, ordered(fields.strain), ordered(fields.stress), rve, error)
