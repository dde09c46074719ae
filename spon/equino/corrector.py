# SPDX-License-Identifier: MIT
"""The best response in the modes of a model, without its networks, for many strains at once.

The networks of a `spon.EquiNO` predict coefficients of modes. Without them, the displacement is that of least energy in
its modes (Galerkin's method on the cubature, as in `spon.ReducedModel`), and its derivatives are the stress and the
tangent. Its stress in equilibrium is the one nearest to the stress of its law in the norm of the compliance C⁻¹, with
the tangent C of the law. This is a step of Newton's method for the largest lower bound of the
energy, so that the gap exceeds its least value by a quadratic term. Both fields are admissible at any strain, also
outside the trained range, so that the gap bounds the error as for a network, see `spon.equino.certificate`.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.equino.certificate import EnergyBounds, energy_at_zero_strain, energy_bounds
from spon.equino.model import EquiNO, pack, unpack
from spon.reduced.galerkin import ReducedModel
from spon.reduced.galerkin_c import CompiledModes, RVEsInModes, compiled_modes
from spon.reduced.modes import ModesAtPoints

_KIND = "modal corrector"
_STEP = 1e-9  # size of the last step of Newton's method, relative to the strain in the energy norm
_ITERATIONS = 30


@dataclass(frozen=True, slots=True, eq=False)
class ModalSolution:
    """The response in the modes at n strains; NaN, and an infinite gap, where Newton's method did not converge.

    Args:
        stress: (n, d) homogenised [MPa].
        tangent: (n, d, d) homogenised [MPa].
        coefficients: (n, r) of the displacement modes, at finite strain at the stretch.
        stress_coefficients: (n, r) of the nearest stress in equilibrium, likewise.
        bounds: of the mean energy.
    """

    stress: Tensor
    tangent: Tensor
    coefficients: Tensor
    stress_coefficients: Tensor
    bounds: EnergyBounds

    @property
    def upper(self) -> Tensor:
        """Upper bound of the mean energy (n,), as in `spon.Certificate` [MPa]."""
        return self.bounds.upper

    @property
    def gap(self) -> Tensor:
        """Upper minus lower bound (n,), as in `spon.Certificate` [MPa]."""
        return self.bounds.gap


@dataclass(frozen=True, slots=True, eq=False)
class _LeastEnergy:
    """Homogenised stress (n, d), tangent (n, d, d) [MPa] and coefficients (n, r); NaN without convergence."""

    stress: Tensor
    tangent: Tensor
    coefficients: Tensor


class ModalCorrector:
    """The response in the modes of a model without its networks, on the CPU in float64.

    Args:
        model: with the modes on the cubature, and the displacement network that predicts the initial coefficients.
        compiled: whether to minimise the energy in machine code, which needs a C compiler.
    """

    def __init__(self, model: EquiNO, *, compiled: bool = True):
        self.model, self.at, self.compiled = model, model.cubature, compiled
        at = self.at
        self._reduced = ReducedModel(at.laws, at.strain_modes, at.weights, model.upper, at.fingerprint)
        self._code: CompiledModes | None = None
        if compiled and all(law.local is None for law in at.laws.laws):
            self._code = compiled_modes(at.laws.laws, at.strain_modes.shape[2])
        if self._code is not None:
            phase = np.repeat(np.arange(len(at.laws.counts)), at.laws.counts)
            self._rve: RVEsInModes = self._code.prepare(
                at.strain_modes.numpy()[None], phase[None], at.weights.numpy()
            )  # fmt: skip

    @torch.no_grad()
    def __call__(self, strain: Tensor, at: ModesAtPoints | None = None) -> ModalSolution:
        """The response at strains (n, d).

        Args:
            strain: (n, d).
            at: modes at the points where the gap is computed; None for those of the cubature.

        Raises:
            ValueError: modes of another RVE.
        """
        at, model = self.at if at is None else at, self.model
        at.require(model.fingerprint)
        coordinates = model.measure.coordinates(strain)
        stretch = model.measure.strain(coordinates)
        least = self._minimise(stretch, self._start(coordinates))
        stress_coefficients = self._nearest_stress(self.at.strain(stretch, least.coefficients))
        fields = at.fields(stretch, least.coefficients, stress_coefficients)
        bounds = energy_bounds(at, fields, energy_at_zero_strain(at), model.gap_calibration)
        bounds = bounds._replace(gap=torch.where(least.stress.isfinite().all(1), bounds.gap, torch.inf))
        stress, tangent = least.stress, least.tangent
        if model.measure.finite:
            stress, tangent = model.measure.turned_back(strain, *model.measure.projected(stress, tangent))
        return ModalSolution(stress, tangent, least.coefficients, stress_coefficients, bounds)

    def save(self, path: str | os.PathLike) -> None:
        """Write the corrector with its model to one file, see `spon.load`.

        Raises:
            ValueError: a model that was loaded without its RVE modes.
        """
        header, tensors = pack(self.model)
        write(path, _KIND, header | {"compiled": self.compiled}, tensors)

    def _start(self, coordinates: Tensor) -> Tensor:
        """Coefficients (n, r) of the network at coordinates (n, s), outside the trained range at its end on the same
        ray: far outside, a prediction may be worse than none, and without any, stiff phases deform as much as others,
        where an energy at finite strain need not be convex."""
        model = self.model
        end = torch.where(coordinates > 0, model.upper, model.lower) / coordinates
        scale = torch.where(end > 0, end, 1.0).amin(dim=1).clamp(max=1.0)
        return model.displacement(scale[:, None] * coordinates).nan_to_num(nan=0.0)

    def _minimise(self, strain: Tensor, start: Tensor) -> _LeastEnergy:
        """Minimise the energy from initial coefficients (n, r)."""
        if self._code is None:
            solution = self._reduced.attempt(strain, start)
            return _LeastEnergy(solution.stress, solution.tangent, solution.coefficients)
        which = np.zeros(len(strain), dtype=np.int64)
        found = self._code(self._rve, which, strain.numpy(), start.numpy(), _STEP, _ITERATIONS)
        for values in (found.stress, found.tangent, found.coefficients):
            values[found.iterations < 0] = np.nan
        return _LeastEnergy(*(torch.from_numpy(x) for x in (found.stress, found.tangent, found.coefficients)))

    def _nearest_stress(self, epsilon: Tensor) -> Tensor:
        """Coefficients (n, r) of the stress nearest to that of the law at strains (n, m, d) of the cubature."""
        modes, weights = self.at.stress_modes, self.at.weights
        # A law without stiffness has no compliance: its rows become infinite and do not block the others. At finite
        # strain tangents need not be positive definite.
        laws = self.at.laws
        metric = laws.metric()[None] if laws.measure.finite else laws.tangent(epsilon)
        compliance = torch.linalg.inv_ex(metric)[0] * weights[:, None, None]
        weighted = compliance @ modes
        matrix = torch.einsum("pdr,npds->nrs", modes, weighted)
        target = torch.einsum("npdr,npd->nr", weighted, self.at.laws.stress(epsilon))
        return torch.linalg.solve_ex(matrix.expand(len(target), -1, -1), target)[0]


@unpacks(_KIND)
def load_corrector(file: Reader, *, whole: bool = False) -> ModalCorrector:
    """The modal corrector of a file.

    Args:
        file: an open file; callers give its path.
        whole: as in `spon.equino.model.load_equino`.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds another kind of object.
    """
    return ModalCorrector(unpack(file, whole), compiled=file.header["compiled"])
