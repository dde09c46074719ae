# SPDX-License-Identifier: MIT
"""The error measure of the certified law: the gap of the certificate relative to an energy."""

import numpy as np
import numpy.typing as npt
import torch

from spon import EquiNO, ModesAtPoints, certify
from spon.equino import energy_at_zero_strain, energy_bounds

Array = npt.NDArray[np.float64]

# Quadrature points of RVEs whose certificates are computed at a time: some MB, so that the cache holds them.
_LOCAL_POINTS = 2**16


class RelativeGap:
    """|gap| / (upper + floor² energy of the softest strain that spans the trained range), energies from zero strain.

    The error of a model does not vanish with the strain: without the second term the gap at zero strain would be
    divided by zero, and points with almost no load would be the most expensive. The term is the energy of the softest
    strain, mostly a shear, because the energy of a dilatation would hide any error of a shear. It is that of an RVE of
    uniform stress (Reuss), a lower bound that does not depend on the networks. A gap below zero is rounding.

    Args:
        model: the model, on the CPU in float64.
        at: the points of the RVE at which the certificate is computed; None for the model's cubature.
        floor: a strain as a fraction of the trained range.

    Attributes:
        at: the points.
        floor_energy: the second term [MPa].
        chunk: points of the structure that are evaluated at a time.

    Raises:
        ValueError: points of another RVE, materials without energy or with one that is not convex.
    """

    def __init__(self, model: EquiNO, at: ModesAtPoints | None, floor: float):
        self.at = model.cubature if at is None else at
        for law in self.at.laws.laws:
            if law.energy_program is None:
                raise ValueError(f"{law.name} has no energy, which the certificate needs")
        # Raises for modes of another RVE or precision, and for an energy that is not convex.
        certify(model, torch.zeros_like(model.lower)[None], self.at)
        self._model = model
        self._at_rest = energy_at_zero_strain(self.at)
        corner = torch.maximum(model.lower.abs(), model.upper.abs())
        softest = torch.linalg.eigvalsh(corner[:, None] * _reuss_stiffness(self.at) * corner)[0] / 2
        # Bounded away from zero, the divisor.
        self.floor_energy = max(floor, 1e-6) ** 2 * float(softest)
        self.chunk = max(1, _LOCAL_POINTS // len(self.at.weights))

    def of_model(self, strain: Array) -> Array:
        """Relative gaps (n,) of the model at strains (n, d)."""
        found = np.empty(len(strain))
        with torch.no_grad():
            for first in range(0, len(strain), self.chunk):
                part = slice(first, first + self.chunk)
                some = torch.from_numpy(np.ascontiguousarray(strain[part]))
                upper, gap = energy_bounds(self._model, some, self.at, self._at_rest)
                found[part] = self.of(gap, upper)
        return found

    def of(self, gap: torch.Tensor, upper: torch.Tensor) -> Array:
        """Relative gaps (n,) of gaps and upper bounds (n,) [MPa]."""
        return (gap.abs() / (upper - self._at_rest + self.floor_energy)).numpy()


def _reuss_stiffness(at: ModesAtPoints) -> torch.Tensor:
    """Stiffness (d, d) [MPa] at zero strain of the phases under uniform stress."""
    rest = at.weights.new_zeros(1, at.laws.strain_size)
    shares = (w.sum() for w in at.weights.split(list(at.laws.counts)))
    return torch.linalg.inv(
        sum(share * torch.linalg.inv(law.tangent(rest)[0]) for law, share in zip(at.laws.laws, shares, strict=True))
    )
